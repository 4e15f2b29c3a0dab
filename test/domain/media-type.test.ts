import t from 'tap'
import { AUDIO_TYPES, declaresAudioOf, servedType } from '../../src/domain/media-type.js'

const wav = ['audio/wav', 'audio/x-wav', 'audio/wave', 'audio/vnd.wave', 'Audio/WAV', 'audio/wav; codecs=1', 'audio/wav;charset=utf-8']
const opus = [
  'audio/opus', 'audio/ogg', 'audio/ogg; codecs=opus', 'audio/ogg;codecs="opus"', 'AUDIO/OGG; Codecs=OPUS', 'audio/ogg; rate=48000 ; codecs=opus', 'audio/opus; rate=48000'
]
const any = [undefined, '', ' ', 'application/octet-stream', 'Application/Octet-Stream; x=y']
const none = ['audio/ogg; codecs=vorbis', 'audio/ogg; codecs="opus,vorbis"', 'audio/ogg; codecs=', 'audio/mpeg', 'audio/webm; codecs=opus', 'text/html', 'audio', 'audio/*', 'audio/wavx', 'wav']

t.test('a declared type fits a slot where it is the type, an alias of it, or says nothing', async t => {
  for (const type of [...wav, ...any]) t.ok(declaresAudioOf('audio/wav', type), `${type} for WAV`)
  for (const type of [...opus, ...any]) t.ok(declaresAudioOf('audio/opus', type), `${type} for Opus`)
})

t.test('any other type does not, the other slot\'s type included', async t => {
  for (const type of [...opus, ...none]) t.notOk(declaresAudioOf('audio/wav', type), `${type} for WAV`)
  for (const type of [...wav, ...none]) t.notOk(declaresAudioOf('audio/opus', type), `${type} for Opus`)
})

t.test('browsers are told that Opus is Ogg, because they refuse audio/opus', async t => {
  t.strictSame(AUDIO_TYPES.map(servedType), ['audio/ogg; codecs=opus', 'audio/wav'])
})

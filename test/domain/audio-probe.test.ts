import { readdirSync, readFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { parseBuffer } from 'music-metadata'
import t, { type Test } from 'tap'
import { createAudioProbe } from '../../src/domain/audio-probe.js'
import { AUDIO_TYPES, type AudioType } from '../../src/domain/media-type.js'
import { AppError } from '../../src/errors.js'
import { DURATIONS, typeOf } from '../samples.js'
import { chunk, extension, fmt, headers, opusHead, opusTags, packet, packets, page, second, sound, u16, u32, u64, wav, type Fmt, type Head } from './audio-bytes.js'

const SAMPLES = new URL('../fixtures/samples/', import.meta.url)
const sample = (path: string) => readFileSync(new URL(path, SAMPLES))

type Outcome = { durationMs: number } | { refused: string, expected: unknown, found: unknown, after: number }

/** What a probe makes of a file in these pieces, and for a refusal after how many bytes (one more: only at the end). */
function probe (type: AudioType, pieces: Iterable<Uint8Array>): Outcome {
  const audio = createAudioProbe(type)
  let fed = 0
  try {
    for (const piece of pieces) {
      fed += piece.length
      audio.feed(piece)
    }
    fed++
    return audio.end()
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== 'unsupported_audio') throw error
    return { refused: error.message, expected: error.facts.expected, found: error.facts.found, after: fed }
  }
}

function * cut (bytes: Uint8Array, lengths: Iterable<number>): Generator<Uint8Array> {
  let at = 0
  for (const length of lengths) {
    yield bytes.subarray(at, at += length)
    if (at >= bytes.length) return
  }
  yield bytes.subarray(at)
}
const ONES = { * [Symbol.iterator] () { for (;;) yield 1 } }

const whole = (type: AudioType, bytes: Uint8Array) => probe(type, [bytes])
const bytewise = (type: AudioType, bytes: Uint8Array) => probe(type, cut(bytes, ONES))
const withoutPlace = (outcome: Outcome) => ({ ...outcome, after: 0 })

/** A file has to be accepted with this duration, whole and byte by byte. */
function sounds (t: Test, type: AudioType, bytes: Uint8Array, durationMs: number, name = 'it'): void {
  t.strictSame(whole(type, bytes), { durationMs }, name)
  t.strictSame(bytewise(type, bytes), { durationMs }, `${name}, byte by byte`)
}

/** A file has to be refused with a sentence like this, byte by byte after just so many bytes. */
function refuses (t: Test, type: AudioType, bytes: Uint8Array, like: RegExp, after: number, name = 'it'): void {
  const outcome = bytewise(type, bytes)
  t.match(outcome, { refused: like, after }, name)
  t.strictSame(withoutPlace(whole(type, bytes)), withoutPlace(outcome), `${name}, whole`)
}

const soundsWav = (t: Test, chunks: readonly Uint8Array[], durationMs: number, name?: string) => sounds(t, 'audio/wav', wav(chunks), durationMs, name)
const AT_END = (bytes: Uint8Array) => bytes.length + 1

t.test('samples', async t => {
  t.strictSame(readdirSync(new URL('ok/', SAMPLES)).filter(name => !name.endsWith('.multipart')).sort(), Object.keys(DURATIONS).sort(), 'the table is complete')

  for (const [name, seconds] of Object.entries(DURATIONS)) {
    await t.test(`${name} is accepted with the README's duration, and music-metadata's, within 1 ms`, async t => {
      const bytes = sample(`ok/${name}`)
      const outcome = whole(typeOf(name), bytes)
      const measured = 'durationMs' in outcome ? outcome.durationMs : NaN
      t.ok(Math.abs(measured - seconds * 1000) <= 1, `${measured} ms`)
      const judged = await parseBuffer(bytes, { mimeType: typeOf(name) }, { duration: true })
      t.ok(Math.abs(measured - (judged.format.duration ?? NaN) * 1000) <= 1, `${judged.format.duration} s for music-metadata`)
    })
    await t.test(`${name} byte by byte is the same as whole`, async t => {
      t.strictSame(bytewise(typeOf(name), sample(`ok/${name}`)), whole(typeOf(name), sample(`ok/${name}`)))
    })
    await t.test(`${name} is refused at its first byte under the other type`, async t => {
      t.match(bytewise(typeOf(name) === 'audio/wav' ? 'audio/opus' : 'audio/wav', sample(`ok/${name}`)), { refused: /no (WAV|Ogg) file/, after: 1 })
    })
  }

  for (const name of readdirSync(new URL('bad/', SAMPLES))) {
    await t.test(`${name} is refused whatever type is declared, byte by byte too`, async t => {
      const bytes = sample(`bad/${name}`)
      for (const type of AUDIO_TYPES) {
        const outcome = bytewise(type, bytes)
        t.match(outcome, { refused: /^[A-Z].*\.$/, expected: /./, found: /./ }, type)
        t.strictSame(withoutPlace(whole(type, bytes)), withoutPlace(outcome), `${type}, whole`)
      }
    })
  }

  await t.test('a bad sample is refused at the first byte that shows it', async t => {
    const places = { 'html-named.wav': 1, 'mp3-named.wav': 1, 'riff-avi-named.wav': 9, 'zero-channels.wav': 24, 'webm-opus-named.opus': 1, 'ogg-magic-then-html.opus': 29, 'oggflac-named.opus': 29, 'vorbis-named.opus': 29 }
    for (const [name, after] of Object.entries(places)) t.match(bytewise(typeOf(name), sample(`bad/${name}`)), { after }, name)
  })
})

t.test('the probe', async t => {
  await t.test('does not keep the chunk', async t => {
    for (const name of ['pcm16-16k.wav', 'speech-24k.opus']) {
      const audio = createAudioProbe(typeOf(name))
      const scratch = new Uint8Array(7)
      for (const piece of cut(sample(`ok/${name}`), Array<number>(100_000).fill(7))) {
        scratch.set(piece)
        audio.feed(scratch.subarray(0, piece.length))
        scratch.fill(0x55)
      }
      t.strictSame(audio.end(), { durationMs: 6712 }, name)
    }
  })

  await t.test('gives its verdict again when asked again', async t => {
    const refused = createAudioProbe('audio/wav')
    t.throws(() => refused.feed(Buffer.from('no')), { code: 'unsupported_audio' })
    t.throws(() => refused.feed(Buffer.from('RIFF')), { code: 'unsupported_audio' })
    t.throws(() => refused.end(), { code: 'unsupported_audio' })
    const accepted = createAudioProbe('audio/wav')
    accepted.feed(sample('ok/pcm16-16k.wav'))
    t.strictSame(accepted.end(), accepted.end())
    accepted.feed(Buffer.from('more'))
    t.strictSame(accepted.end(), { durationMs: 6712 })
  })

  await t.test('names what it found in printable characters only', async t => {
    const refusals = fc.uint8Array({ maxLength: 60 })
    fc.assert(fc.property(refusals, fc.constantFrom(...AUDIO_TYPES), (bytes, type) => {
      const outcome = whole(type, bytes)
      return 'refused' in outcome && /^[\x20-\x7e]*$/.test(`${outcome.expected} ${outcome.found}`)
    }), { numRuns: 200 })
    t.pass()
  })
})

t.test('WAV: the formats', async t => {
  await t.test('uncompressed sound lasts its bytes by block by rate', async t => {
    const cases: [string, Fmt, number, number][] = [
      ['8 bit', { bits: 8 }, 8000, 1000],
      ['16 bit', {}, 16_000, 1000],
      ['24 bit stereo', { bits: 24, channels: 2, rate: 48_000 }, 288_000, 1000],
      ['20 bit in 3 bytes', { bits: 20, block: 3 }, 24_000, 1000],
      ['24 bit in 4 bytes', { bits: 24, block: 4 }, 32_000, 1000],
      ['float of 32 bit', { code: 3, bits: 32 }, 32_000, 1000],
      ['float of 64 bit', { code: 3, bits: 64 }, 64_000, 1000],
      ['A-law', { code: 6, bits: 8 }, 8000, 1000],
      ['µ-law stereo', { code: 7, bits: 8, channels: 2 }, 16_000, 1000],
      ['A-law whose writer says 16 bit', { code: 6, bits: 16 }, 8000, 1000],
      ['one sample', {}, 2, 0],
      ['PCM whose byte rate is wrong', { byteRate: 0 }, 16_000, 1000],
      ['half a sample more', { rate: 100 }, 201, 1000]
    ]
    for (const [name, format, bytes, durationMs] of cases) soundsWav(t, [fmt(format), chunk('data', sound(bytes))], durationMs, name)
  })

  await t.test('the duration is rounded to whole milliseconds', async t => {
    soundsWav(t, [fmt({ rate: 44_100 }), chunk('data', sound(2 * 44_100 / 100 + 2 * 22))], 10, '10.499 ms')
    soundsWav(t, [fmt({ rate: 44_100 }), chunk('data', sound(2 * 44_100 / 100 + 2 * 23))], 11, '10.522 ms')
  })

  await t.test('WAVE_FORMAT_EXTENSIBLE has its format in the SubFormat', async t => {
    const extensible = (subformat: number, more: Fmt = {}, tail?: string) => fmt({ code: 0xfffe, extra: extension(subformat, tail), ...more })
    soundsWav(t, [extensible(1), chunk('data', sound(16_000))], 1000, 'PCM')
    soundsWav(t, [extensible(3, { bits: 32 }), chunk('data', sound(32_000))], 1000, 'float')
    soundsWav(t, [extensible(7, { bits: 8 }), chunk('data', sound(8000))], 1000, 'µ-law')
    soundsWav(t, [extensible(1, { byteRate: 8000, block: 2 }, '000021079311d38644c8c1ca000000'.slice(0, 28)), chunk('data', sound(16_000))], 2000, 'a foreign SubFormat goes by its byte rate')
    soundsWav(t, [extensible(1, { extra: Buffer.concat([extension(1), sound(6)]) }), chunk('data', sound(16_000))], 1000, 'longer than it need be')
    refuses(t, 'audio/wav', wav([fmt({ code: 0xfffe, extra: u16(0) }), chunk('data', sound(16_000))]), /too short for its SubFormat/, 22)
  })

  await t.test('a format that cannot sound is refused at the field that shows it', async t => {
    const cases: [string, Uint8Array, RegExp, number][] = [
      ['14 bytes', chunk('fmt ', sound(14)), /too short/, 20],
      ['no channel', fmt({ channels: 0 }), /no channel/, 24],
      ['no sample rate', fmt({ rate: 0 }), /no sample rate/, 28],
      ['no block', fmt({ block: 0 }), /blocks without a byte/, 34],
      ['no bits', fmt({ bits: 0, block: 2 }), /do not fit/, 36],
      ['24 bits in 2 bytes', fmt({ bits: 24, block: 2 }), /do not fit/, 36],
      ['a block of 3 bytes for two channels', fmt({ channels: 2, block: 3 }), /do not fit/, 36],
      ['9 bytes a sample', fmt({ block: 9 }), /do not fit/, 36],
      ['compressed without a byte rate', fmt({ code: 0x31, block: 65, byteRate: 0, bits: 0 }), /without a byte rate/, 36]
    ]
    for (const [name, format, like, after] of cases) refuses(t, 'audio/wav', wav([format, chunk('data', sound(1000))]), like, after, name)
  })
})

t.test('WAV: compressed formats', async t => {
  const gsm = fmt({ code: 0x31, block: 65, byteRate: 1625, bits: 0, extra: Buffer.concat([u16(2), u16(320)]) })
  // 25 blocks: one second.
  const second = chunk('data', sound(1625))
  const fact = (samples: number) => chunk('fact', u32(samples))

  await t.test('GSM 6.10 lasts what its fact chunk says, before or after the sound', async t => {
    soundsWav(t, [gsm, fact(7900), second], 988)
    soundsWav(t, [gsm, second, fact(7900)], 988)
    soundsWav(t, [gsm, chunk('fact', Buffer.concat([u32(7900), sound(5)])), second], 988, 'a longer fact chunk')
  })

  await t.test('without a fact chunk, or with one that says nothing, the byte rate decides', async t => {
    soundsWav(t, [gsm, second], 1000)
    for (const samples of [0, 0xffffffff, 1, 3999]) soundsWav(t, [gsm, fact(samples), second], 1000, `fact ${samples}`)
    soundsWav(t, [gsm, chunk('fact', u16(7900)), second], 1000, 'a fact chunk of two bytes')
    const cutFact = Buffer.concat([wav([gsm, second]), Buffer.from('fact'), u32(4), u16(7900)])
    sounds(t, 'audio/wav', cutFact, 1000, 'a fact chunk that is cut')
  })

  await t.test('a fact chunk that says more than is there is not believed', async t => {
    for (const samples of [8010, 80_000, 0xfffffffe]) soundsWav(t, [gsm, fact(samples), second], 1000, `fact ${samples}`)
    soundsWav(t, [fmt({ code: 0x11, block: 256, byteRate: 1, bits: 4 }), fact(0xfffffffe), chunk('data', sound(256))], 256_000, 'nor with a byte rate that lies too')
  })

  await t.test('a fact chunk may say more than the byte rate by what rounding the byte rate makes', async t => {
    // 1024 bytes hold 2041 samples: 11062.8 bytes a second.
    const adpcm = fmt({ code: 0x11, rate: 22_050, block: 1024, byteRate: 11_063, bits: 4, extra: Buffer.concat([u16(2), u16(2041)]) })
    soundsWav(t, [adpcm, chunk('data', sound(1024 * 2000))], 185_122)
    soundsWav(t, [adpcm, fact(2041 * 2000), chunk('data', sound(1024 * 2000))], 185_125)
  })

  await t.test('one whole block has to be there', async t => {
    soundsWav(t, [gsm, chunk('data', sound(65))], 40)
    const less = wav([gsm, chunk('data', sound(64))])
    refuses(t, 'audio/wav', less, /no sound/, AT_END(less))
  })

  await t.test('fact does not count for uncompressed sound', async t => soundsWav(t, [fmt(), fact(5), chunk('data', sound(16_000))], 1000))
})

t.test('WAV: the chunks', async t => {
  const data = chunk('data', sound(16_000))

  await t.test('chunks before and after are passed over, padded where their length is odd', async t => {
    soundsWav(t, [chunk('JUNK', sound(28)), chunk('bext', sound(3)), fmt(), chunk('LIST', sound(27)), data, chunk('id3 ', sound(99))], 1000)
    soundsWav(t, [chunk('\0\0\0\0', sound(0)), chunk('\xff<a>', sound(5)), fmt(), data], 1000, 'whatever their names')
    soundsWav(t, [fmt({ extra: u16(0) }), data], 1000, 'fmt of 18 bytes')
    soundsWav(t, [fmt({ extra: sound(3) }), data], 1000, 'fmt of 19 bytes')
  })

  await t.test('the first format counts, and the first sound', async t => {
    soundsWav(t, [fmt(), fmt({ rate: 16_000 }), data, chunk('data', sound(16_000)), fmt({ channels: 0 })], 1000)
  })

  await t.test('sound after sound of odd length is no sound', async t => {
    soundsWav(t, [fmt({ bits: 8, rate: 1000 }), chunk('data', sound(3)), chunk('data', sound(99))], 3)
    soundsWav(t, [fmt({ bits: 8 }), chunk('data', sound(7999)), chunk('fact', u32(1)), chunk('data', sound(99))], 1000)
  })

  await t.test('sound before a format is refused where it begins', async t => {
    refuses(t, 'audio/wav', wav([chunk('LIST', sound(4)), data, fmt()]), /before its format/, 12 + 12 + 8)
  })

  await t.test('no fmt chunk at all is refused at the end', async t => {
    for (const chunks of [[], [chunk('LIST', sound(40))], [chunk('LIST', sound(40), 0xffffffff)]]) {
      refuses(t, 'audio/wav', wav(chunks), /no fmt chunk/, AT_END(wav(chunks)))
    }
  })

  await t.test('a file cut before its sound is refused at the end', async t => {
    const bytes = wav([fmt(), data])
    for (let length = 0; length < 46; length++) {
      refuses(t, 'audio/wav', bytes.subarray(0, length), length < 12 || (length >= 20 && length < 36) ? /ends within its header/ : length < 20 ? /no fmt chunk/ : /no sound/, length + 1, `${length} bytes`)
    }
    sounds(t, 'audio/wav', bytes.subarray(0, 46), 0, 'with one sample it is sound')
  })
})

t.test('WAV: lengths that are not true', async t => {
  const declared = (length: number, bytes: Uint8Array) => wav([fmt(), chunk('data', bytes, length)], 'RIFF', length)

  await t.test('a length not known (0, 0xFFFFFFFF) is all that follows', async t => {
    for (const length of [0, 0xffffffff]) sounds(t, 'audio/wav', declared(length, sound(16_000)), 1000, String(length))
  })

  await t.test('a length too large is what is there', async t => {
    for (const length of [16_044, 0x7fffffff, 0x80000000, 0xfffffffe]) sounds(t, 'audio/wav', declared(length, sound(16_000)), 1000, String(length))
  })

  await t.test('a length too small is believed', async t => sounds(t, 'audio/wav', declared(8000, sound(16_000)), 500))

  await t.test('the recorder\'s CR LF after the sound is no sound beyond what is declared', async t => {
    const crlf = Buffer.from('\r\n')
    sounds(t, 'audio/wav', Buffer.concat([wav([fmt({ bits: 8, rate: 1000 }), chunk('data', sound(1000))]), crlf]), 1000)
    sounds(t, 'audio/wav', Buffer.concat([sample('ok/flexisip-voicemail-8.6s.wav'), crlf]), 8597)
    sounds(t, 'audio/wav', Buffer.concat([sample('ok/flexisip-voicemail-0.27s.wav'), crlf]), 267)
  })

  await t.test('the recorder\'s CR LF alone is no sound', async t => {
    for (const length of [0, 0xffffffff, 44, 16_044]) {
      const bytes = declared(length, Buffer.from('\r\n'))
      refuses(t, 'audio/wav', bytes, /no sound/, AT_END(bytes), String(length))
    }
    sounds(t, 'audio/wav', declared(2, Buffer.from('\r\n')), 0, 'a sample of the same value is')
  })

  await t.test('a data chunk of length 0 with another chunk after it is empty', async t => {
    const empty = wav([fmt(), chunk('data', sound(0)), chunk('LIST', sound(40))])
    refuses(t, 'audio/wav', empty, /no sound/, AT_END(empty))
    soundsWav(t, [fmt(), chunk('data', sound(0)), chunk('LIST', sound(40)), chunk('data', sound(16_000))], 1000)
    const nothing = wav([fmt(), chunk('data', sound(0))])
    refuses(t, 'audio/wav', nothing, /no sound/, AT_END(nothing))
  })

  await t.test('RF64 has its length in ds64', async t => {
    const ds64 = (data: bigint, samples = 0n) => chunk('ds64', Buffer.concat([u64(0n), u64(data), u64(samples), u32(0)]))
    const rf64 = (ds: Uint8Array, length: number, format = fmt(), more: Uint8Array[] = []) => wav([ds, format, ...more, chunk('data', sound(16_000), length), chunk('LIST', sound(400))], 'RF64', 0xffffffff)
    sounds(t, 'audio/wav', rf64(ds64(16_000n), 0xffffffff), 1000)
    sounds(t, 'audio/wav', rf64(ds64(15_999n), 0xffffffff), 1000, 'an odd one')
    sounds(t, 'audio/wav', rf64(ds64(3n), 0xffffffff), 0, 'a small one')
    sounds(t, 'audio/wav', rf64(ds64(5n), 16_000), 1000, 'only where the chunk itself has none')
    for (const unknown of [0n, 1n << 40n, (1n << 64n) - 1n]) sounds(t, 'audio/wav', rf64(ds64(unknown), 0xffffffff), 1026, `not known: ${unknown}`)
    sounds(t, 'audio/wav', rf64(chunk('ds64', sound(8)), 0xffffffff), 1026, 'a ds64 too short')
    sounds(t, 'audio/wav', wav([ds64(5n), fmt(), chunk('data', sound(16_000), 0xffffffff)]), 1000, 'a ds64 in RIFF says nothing')
    const gsm = fmt({ code: 0x31, block: 65, byteRate: 16_000, bits: 0 })
    sounds(t, 'audio/wav', rf64(ds64(16_000n, 7000n), 0xffffffff, gsm, [chunk('fact', u32(0xffffffff))]), 875, 'and the samples of fact')
    refuses(t, 'audio/wav', wav([ds64(5n)], 'RF64').subarray(0, 30), /ends within/, 31)
  })

  await t.test('other forms and byte orders are refused at the byte that shows it', async t => {
    const cases: [string, number][] = [['RIFX', 4], ['riff', 1], ['RF65', 4], ['BW64', 1]]
    for (const [form, after] of cases) refuses(t, 'audio/wav', wav([fmt(), chunk('data', sound(99))], form), /does not begin with/, after, form)
    refuses(t, 'audio/wav', Buffer.from('RIFF\0\0\0\0WEBPVP8 '), /another form/, 10)
  })
})

t.test('Ogg Opus: the headers', async t => {
  const withHead = (head: Buffer, options = {}) => Buffer.concat([page([head], { flags: 2, ...options }), page([opusTags()]), page(packets(50), { granule: 48_000n })])

  await t.test('every OpusHead of RFC 7845 is taken', async t => {
    const cases: [string, Head][] = [
      ['mono', {}], ['stereo', { channels: 2 }], ['a later minor version', { version: 15 }], ['version 0', { version: 0 }],
      ['surround', { channels: 6, family: 1, mapping: [4, 2, 0, 4, 1, 2, 3, 5] }],
      ['a silent channel', { channels: 3, family: 255, mapping: [2, 0, 0, 1, 255] }]
    ]
    for (const [name, head] of cases) sounds(t, 'audio/opus', withHead(opusHead(head)), 994, name)
    sounds(t, 'audio/opus', withHead(Buffer.concat([opusHead(), sound(300)])), 994, 'a longer one')
  })

  await t.test('an OpusHead that no player takes is refused at the byte that shows it', async t => {
    const cases: [string, Head, number][] = [
      ['version 16', { version: 16 }, 9], ['no channel', { channels: 0 }, 10], ['three channels in family 0', { channels: 3 }, 19],
      ['nine channels in family 1', { channels: 9, family: 1, mapping: Array<number>(11).fill(1) }, 19],
      ['no mapping', { family: 1 }, 19], ['no stream', { family: 255, mapping: [0, 0, 0] }, 20],
      ['more coupled streams than streams', { family: 255, mapping: [1, 2, 0] }, 21],
      ['too many streams', { family: 255, mapping: [200, 100, 0] }, 21],
      ['a channel of no stream', { family: 255, mapping: [1, 0, 1] }, 22]
    ]
    for (const [name, head, after] of cases) refuses(t, 'audio/opus', withHead(opusHead(head)), /not a valid OpusHead/, 28 + after, name)
    refuses(t, 'audio/opus', withHead(opusHead().subarray(0, 18)), /not a valid OpusHead/, 28, 'too short')
    refuses(t, 'audio/opus', withHead(Buffer.from('OpusHeed...........')), /not a valid OpusHead/, 28 + 7, 'another word')
  })

  await t.test('the first page has to be the first of a stream, of version 0, with OpusHead alone and whole', async t => {
    refuses(t, 'audio/opus', withHead(opusHead(), { flags: 0 }), /first page of a stream/, 6)
    const version1 = withHead(opusHead())
    version1[4] = 1
    refuses(t, 'audio/opus', version1, /unknown version/, 5)
    refuses(t, 'audio/opus', page([opusHead(), packet()], { flags: 2 }), /not a valid OpusHead/, 29, 'two packets')
    refuses(t, 'audio/opus', page([], { flags: 2 }), /not a valid OpusHead/, 27, 'none')
    refuses(t, 'audio/opus', page([Buffer.concat([opusHead(), sound(236)])], { flags: 2, open: true }), /not a valid OpusHead/, 28, 'one that goes on')
  })

  await t.test('the checksums of the header pages have to be right', async t => {
    refuses(t, 'audio/opus', withHead(opusHead(), { checksum: 1 }), /checksum/, 47)
    refuses(t, 'audio/opus', Buffer.concat([page([opusHead()], { flags: 2 }), page([opusTags()], { checksum: 1 }), page(packets(1))]), /checksum/, 47 + 28 + 20)
  })

  await t.test('OpusTags may span pages, and be on a page of its own with nothing before it', async t => {
    const tags = opusTags(255 * 300 - 20)
    const spanning = Buffer.concat([
      page([opusHead()], { flags: 2 }), page([]),
      page([tags.subarray(0, 255 * 200)], { granule: -1n, open: true }), page([tags.subarray(255 * 200)], { flags: 1 }),
      page(packets(50), { granule: 48_000n })
    ])
    sounds(t, 'audio/opus', spanning, 994)
  })

  await t.test('another second packet is refused at the byte that shows it', async t => {
    const begin = page([opusHead()], { flags: 2 })
    refuses(t, 'audio/opus', Buffer.concat([begin, page([packet()])]), /not OpusTags/, 47 + 28 + 1)
    refuses(t, 'audio/opus', Buffer.concat([begin, page([Buffer.from('OpusTag')])]), /not OpusTags/, 47 + 28)
    refuses(t, 'audio/opus', Buffer.concat([begin, Buffer.from('Ogg<html>')]), /page does not begin/, 47 + 4)
  })

  await t.test('a file without a packet of sound is refused at the end', async t => {
    const cases: [string, Uint8Array][] = [
      ['headers alone', headers()], ['headers and CR LF', Buffer.concat([headers(), page([])])],
      ['empty packets', Buffer.concat([headers(), page([sound(0), sound(0)], { granule: 960n })])],
      ['packets that are not valid', Buffer.concat([headers(), page([Buffer.of(0x4b), Buffer.of(0x4b, 0), Buffer.of(0x1b, 63)], { granule: 960n })])],
      ['a packet that does not end', Buffer.concat([headers(), page([packet(510)], { open: true })])],
      ['a page that does not end', Buffer.concat([headers(), page(packets(50), { granule: 48_000n })]).subarray(0, -1)],
      ['a packet of another stream', Buffer.concat([headers(), page(packets(50), { serial: 8 })])]
    ]
    for (const [name, bytes] of cases) refuses(t, 'audio/opus', bytes, /before its first packet/, AT_END(bytes), name)
  })
})

t.test('Ogg Opus: the duration', async t => {
  const stream = (...pages: Buffer[]) => Buffer.concat([headers(), ...pages])

  await t.test('is the last granule position less the pre-skip', async t => {
    sounds(t, 'audio/opus', second(), 1000)
    sounds(t, 'audio/opus', second({ trimmed: 480 }), 990, 'the end is trimmed')
    sounds(t, 'audio/opus', stream(page(packets(1), { granule: 432n, flags: 4 })), 3, 'on the only page too')
    sounds(t, 'audio/opus', stream(page(packets(1), { granule: 312n, flags: 4 })), 0, 'down to nothing')
    sounds(t, 'audio/opus', stream(page(packets(50), { granule: 48_000n }), page(packets(1), { granule: 48_000n, flags: 4 })), 994, 'a whole page may be trimmed away')
    sounds(t, 'audio/opus', Buffer.concat([headers({ preSkip: 3840 }), page(packets(2), { granule: 1920n })]), 0, 'less than the pre-skip is nothing')
  })

  await t.test('does not begin before the first sample: a stream may begin anywhere', async t => {
    sounds(t, 'audio/opus', stream(page(packets(25), { granule: 9_024_000n }), page(packets(25), { granule: 9_048_000n })), 994)
  })

  await t.test('is never more than the packets hold, whatever the granule positions say', async t => {
    const half = page(packets(25), { granule: 24_000n })
    for (const lie of [1n << 40n, (1n << 62n) + 1n, (1n << 63n) - 1n, 24_000n, 5n, 0n, -1n, -(1n << 63n)]) {
      sounds(t, 'audio/opus', stream(half, page(packets(25), { granule: lie })), 994, `the last page says ${lie}`)
      sounds(t, 'audio/opus', stream(page(packets(25), { granule: lie }), page(packets(25), { granule: lie })), 994, `both pages say ${lie}`)
    }
    sounds(t, 'audio/opus', stream(half, page(packets(25), { granule: 480_000n }), page(packets(25), { granule: 503_000n, flags: 4 })), 1473, 'a gap has no sound, and does not spoil the trimming')
  })

  await t.test('follows the packets where granule positions say nothing', async t => {
    sounds(t, 'audio/opus', stream(page(packets(50), { flags: 4 })), 994, 'all 0')
    sounds(t, 'audio/opus', Buffer.concat([headers({ preSkip: 0 }), page(packets(50), { flags: 4 })]), 1000, 'all 0, without pre-skip')
    sounds(t, 'audio/opus', stream(page(packets(50), { granule: -1n })), 994, 'all -1')
  })

  await t.test('knows the length of every kind of packet (RFC 6716 section 3.1)', async t => {
    // Milliseconds of a frame by configuration number; the table is copied from the RFC.
    const frames = [10, 20, 40, 60, 10, 20, 40, 60, 10, 20, 40, 60, 10, 20, 10, 20, 2.5, 5, 10, 20, 2.5, 5, 10, 20, 2.5, 5, 10, 20, 2.5, 5, 10, 20]
    for (const [config, frame] of frames.entries()) {
      const most = Math.floor(120 / frame)
      const lengths = [[0, 0, 1], [1, 0, 2], [2, 0, 2], [3, most, most], [3, 0x80 + most, most], [3, most + 1, 0]] as const
      for (const [code, second, count] of lengths) {
        const samples = 240_000 + frame * count * 48
        const bytes = stream(page(packets(250, 2)), page([Buffer.of(config << 3 | code, second)]))
        t.strictSame(whole('audio/opus', bytes), { durationMs: Math.round((samples - 312) / 48) }, `configuration ${config}, code ${code}, ${count} frames`)
      }
    }
  })

  await t.test('counts a packet that spans pages where it ends', async t => {
    const long = packet(255 * 3 + 10)
    const open = (granule: bigint) => page([...packets(24), long.subarray(0, 255)], { granule, open: true })
    const rest = page([long.subarray(510), ...packets(25)], { granule: 48_000n, flags: 1 })
    sounds(t, 'audio/opus', stream(open(23_040n), page([long.subarray(255, 510)], { granule: -1n, flags: 1, open: true }), rest), 994)
    sounds(t, 'audio/opus', stream(open(0n), page(packets(25), { granule: 0n })), 974, 'one that is not continued is lost')
    sounds(t, 'audio/opus', stream(rest), 494, 'so is one whose beginning is missing')
    sounds(t, 'audio/opus', stream(open(0n)), 474, 'or its end')
    sounds(t, 'audio/opus', stream(open(0n), page([long.subarray(255, 510)], { granule: -1n, flags: 1, open: true })), 474, 'or its end after its middle')
    sounds(t, 'audio/opus', stream(open(0n), page(packets(1), { granule: 0n }), page([long.subarray(255)], { granule: 0n, flags: 1 })), 494, 'what seems to continue a lost one does not')
  })

  await t.test('reads each packet where it begins, beside packets of no byte and of one', async t => {
    const bytes = stream(page([sound(0), packet(1), Buffer.of(0x03), packet(1), sound(0), Buffer.of(0x4b, 3), sound(0), Buffer.of(0x4b)], { granule: -1n }))
    sounds(t, 'audio/opus', bytes, Math.round((5 * 960 - 312) / 48))
  })

  await t.test('of a file cut at any byte is that of its whole pages', async t => {
    const bytes = sample('ok/speech-24k.opus')
    const ends = [[841, NaN], [3930, 994], [6821, 1994], [10_206, 2994], [13_608, 3994], [16_927, 4994], [19_708, 5994], [21_547, 6712]] as const
    for (const [index, [end, durationMs]] of ends.entries()) {
      for (const cut of [end, end + 1, end + 30, (ends[index + 1]?.[0] ?? 21_548) - 1]) {
        const outcome = whole('audio/opus', bytes.subarray(0, cut))
        t.match(outcome, index === 0 ? { refused: /before its first packet/ } : { durationMs }, `${cut} bytes`)
      }
    }
  })
})

t.test('Ogg Opus: streams and what is between them', async t => {
  await t.test('chained streams are added up, each without its pre-skip', async t => {
    sounds(t, 'audio/opus', Buffer.concat([second(), second({ serial: 8, trimmed: 480 }), second({ serial: 9 })]), 2990)
    sounds(t, 'audio/opus', Buffer.concat([second(), second()]), 2000, 'of the same serial number too')
    sounds(t, 'audio/opus', Buffer.concat([headers({}, 6), second()]), 1000, 'the first may be empty')
    sounds(t, 'audio/opus', Buffer.concat([sample('ok/speech-24k.opus'), sample('ok/ffmpeg-libopus-16k.opus')]), 13_425)
  })

  await t.test('a chained stream that is not Opus, or not sound in its headers, is passed over', async t => {
    for (const [name, pages] of Object.entries({
      vorbis: page([Buffer.from('\x01vorbis' + '.'.repeat(23))], { flags: 2, serial: 8 }),
      'bad checksum': page([opusHead()], { flags: 2, serial: 8, checksum: 5 }),
      'no tags': page([opusHead()], { flags: 2, serial: 8 }),
      'no such channel count': page([opusHead({ channels: 9 })], { flags: 2, serial: 8 })
    })) sounds(t, 'audio/opus', Buffer.concat([second(), pages, page(packets(50), { granule: 48_000n, serial: 8 }), second({ serial: 9 })]), 2000, name)
  })

  await t.test('streams multiplexed with the first are passed over', async t => {
    const other = { serial: 99, granule: 96_000n }
    const video = page([Buffer.from('\x80theora' + '.'.repeat(40))], { flags: 2, serial: 99 })
    sounds(t, 'audio/opus', Buffer.concat([
      page([opusHead()], { flags: 2 }), video, page([sound(999)], other), page([opusTags()]),
      page(packets(25), { granule: 24_000n }), page([sound(700)], other), page(packets(25), { granule: 48_000n })
    ]), 994)
  })

  await t.test('bytes after the last page are tolerated, CR LF above all', async t => {
    for (const rest of ['\r\n', '\0', 'OggS', 'OggS\0\0', '</html>']) sounds(t, 'audio/opus', Buffer.concat([second(), Buffer.from(rest)]), 1000, JSON.stringify(rest))
  })

  await t.test('bytes between pages of sound are passed over up to the next page', async t => {
    const [first, last] = [page(packets(25), { granule: 24_000n }), page(packets(25), { granule: 48_000n })]
    for (const rubbish of ['x', 'O', 'OggOgg', 'OggS', 'OggS\x01', 'OOggS', first.toString('latin1', 0, 20)]) {
      sounds(t, 'audio/opus', Buffer.concat([headers(), first, Buffer.from(rubbish, 'latin1'), rubbish.length === 20 ? Buffer.alloc(400) : Buffer.alloc(0), last]), 994, JSON.stringify(rubbish))
    }
  })
})

t.test('properties', async t => {
  const type = fc.constantFrom(...AUDIO_TYPES)
  const cuts = fc.array(fc.integer({ min: 1, max: 4000 }), { maxLength: 60 })
  const beginnings = [...Object.keys(DURATIONS).map(name => sample(`ok/${name}`).subarray(0, 12_000)), second(), wav([chunk('JUNK', sound(9)), fmt({ code: 0xfffe, extra: extension(1) }), chunk('data', sound(500)), chunk('fact', u32(3))])]
  const mutated = fc.tuple(fc.constantFrom(...beginnings), fc.array(fc.tuple(fc.oneof(fc.nat(100), fc.nat(12_000)), fc.integer({ min: 0, max: 255 })), { maxLength: 12 }), fc.nat(12_000))
    .map(([bytes, changes, end]) => {
      const copy = Buffer.from(bytes)
      for (const [at, value] of changes) copy[at % copy.length] = value
      return end % 3 === 0 ? copy.subarray(0, end) : copy
    })
  /** Pages and chunks in any order, right and wrong: it gets deeper than bytes at random. */
  const assembled = fc.array(fc.oneof(
    fc.constantFrom(page([opusHead()], { flags: 2 }), page([opusTags()]), headers({}, 8), second(), Buffer.from('\r\n'), wav([fmt()]), fmt(), chunk('data', sound(9)), chunk('data', sound(9), 0)),
    fc.uint8Array({ maxLength: 40 }).map(bytes => Buffer.from(bytes)),
    fc.tuple(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 5 }), fc.nat(7), fc.bigInt({ min: -2n, max: 1n << 63n }), fc.constantFrom(7, 8)).map(([packets, flags, granule, serial]) => page(packets, { flags, granule, serial }))
  ), { maxLength: 8 }).map(parts => Buffer.concat([headers(), ...parts]))
  const files = fc.oneof(fc.uint8Array({ maxLength: 300 }), mutated, assembled)

  await t.test('whatever the bytes, nothing but unsupported_audio is thrown, and a duration is a whole number that the bytes can hold', async t => {
    fc.assert(fc.property(files, type, (bytes, type) => {
      const outcome = whole(type, bytes)
      return 'refused' in outcome || (Number.isInteger(outcome.durationMs) && outcome.durationMs >= 0 && outcome.durationMs <= bytes.length * 2000)
    }), { numRuns: 1500 })
    t.pass()
  })

  await t.test('however a file is cut into chunks, empty ones too, the outcome is the same', async t => {
    fc.assert(fc.property(files, type, cuts, (bytes, type, lengths) => {
      const expected = JSON.stringify(withoutPlace(whole(type, bytes)))
      return [bytewise(type, bytes), probe(type, cut(bytes, lengths)), probe(type, cut(bytes, lengths.flatMap(length => [0, length, 0])))]
        .every(outcome => JSON.stringify(withoutPlace(outcome)) === expected)
    }), { numRuns: 400 })
    t.pass()
  })

  await t.test('a refusal comes at one certain byte: without that byte there is none, and nothing after it matters', async t => {
    fc.assert(fc.property(files, type, (bytes, type) => {
      const outcome = bytewise(type, bytes)
      if (!('refused' in outcome) || outcome.after > bytes.length) return true
      const audio = createAudioProbe(type)
      audio.feed(bytes.subarray(0, outcome.after - 1))
      return JSON.stringify(bytewise(type, Buffer.concat([bytes.subarray(0, outcome.after), sound(99)]))) === JSON.stringify(outcome)
    }), { numRuns: 300 })
    t.pass()
  })
})

t.test('the state is bounded and the time proportional', async t => {
  const MEGABYTES = 24
  setFlagsFromString('--expose-gc')
  const collectGarbage = runInNewContext('gc') as () => void
  const filler = (part: Buffer) => Buffer.concat(Array<Buffer>(Math.ceil((1 << 20) / part.length)).fill(part))
  const cases: [string, AudioType, Buffer, Buffer, object][] = [
    ['sound of a WAV', 'audio/wav', wav([fmt(), chunk('data', sound(0), 0xffffffff)]), filler(sound(1000)), { durationMs: 1_573_500 }],
    ['a chunk that declares 4 GiB', 'audio/wav', wav([chunk('JUNK', sound(0), 0xfffffffe)]), filler(sound(1000)), { refused: /no fmt/ }],
    ['small chunks without end', 'audio/wav', wav([]), filler(chunk('JUNK', sound(60))), { refused: /no fmt/ }],
    ['a packet of tags without end', 'audio/opus', page([opusHead()], { flags: 2 }), filler(page([opusTags(255 * 255 - 20)], { open: true })), { refused: /before its first packet/ }],
    ['a packet of sound without end', 'audio/opus', second(), filler(page([packet(255 * 255)], { flags: 1, open: true })), { durationMs: 1000 }],
    ['chained streams', 'audio/opus', second(), filler(second()), {}],
    ['rubbish after the sound', 'audio/opus', second(), filler(Buffer.from('OggSOgg')), { durationMs: 1000 }]
  ]
  for (const [name, type, begin, megabyte, outcome] of cases) {
    await t.test(`${name}: ${MEGABYTES} MB leave nothing behind`, async t => {
      const held = (): number => {
        collectGarbage()
        const { heapUsed, arrayBuffers } = process.memoryUsage()
        return heapUsed + arrayBuffers
      }
      let grown = NaN
      const result = probe(type, (function * () {
        yield begin
        const before = held()
        for (let fed = 0; fed < MEGABYTES; fed++) yield megabyte
        grown = held() - before
      })())
      t.ok(grown < 1 << 20, `grown by ${grown} bytes`)
      t.match(result, outcome)
    })
  }
})

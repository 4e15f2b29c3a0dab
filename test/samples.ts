import { readFile } from 'node:fs/promises'

/** A file of test/fixtures/samples, such as `ok/pcm16-16k.wav`. */
export async function sample (name: string): Promise<Buffer> {
  return await readFile(new URL(`fixtures/samples/${name}`, import.meta.url))
}

/** The type that a sample is declared as, by its name. */
export function typeOf (name: string): 'audio/opus' | 'audio/wav' {
  return name.endsWith('.opus') ? 'audio/opus' : 'audio/wav'
}

/** What samples/README.md says of the files in ok: seconds. */
export const DURATIONS: Readonly<Record<string, number>> = {
  'pcm16-16k.wav': 6.712,
  'alaw-8k.wav': 6.712,
  'ulaw-8k.wav': 6.712,
  'pcm16-48k-stereo.wav': 2,
  'streamed-unknown-size.wav': 6.712,
  'flexisip-voicemail-8.6s.wav': 8.597,
  'flexisip-voicemail-0.27s.wav': 0.267,
  'speech-24k.opus': 6.712,
  'ffmpeg-libopus-16k.opus': 6.712
}

/** A whole WAV file of so many bytes: mono, 8 kHz, 16 bits, in which no two places look the same. */
export function wavOf (totalBytes: number): Buffer<ArrayBuffer> {
  const file = Buffer.alloc(totalBytes)
  for (let at = 44; at + 4 <= totalBytes; at += 4) file.writeUInt32LE(Math.imul(at, 2654435761) >>> 0, at)
  file.write('RIFF', 0, 'latin1')
  file.writeUInt32LE(totalBytes - 8, 4)
  file.write('WAVEfmt ', 8, 'latin1')
  file.writeUInt32LE(16, 16)
  file.writeUInt16LE(1, 20)
  file.writeUInt16LE(1, 22)
  file.writeUInt32LE(8000, 24)
  file.writeUInt32LE(16_000, 28)
  file.writeUInt16LE(2, 32)
  file.writeUInt16LE(16, 34)
  file.write('data', 36, 'latin1')
  file.writeUInt32LE(totalBytes - 44, 40)
  return file
}

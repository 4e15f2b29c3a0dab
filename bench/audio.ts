import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { wavOf } from '../test/samples.js'

export const SIZES = ['40 KB', '200 KB', '2 MB'] as const
export type Size = typeof SIZES[number]

export const BYTES: Readonly<Record<Size, number>> = { '40 KB': 40_000, '200 KB': 200_000, '2 MB': 2_000_000 }

/** One range, such as a player asks for when somebody jumps into the middle. */
export const RANGE_BYTES = 16_384

/** A WAV file, as it is, and as the bodies and answers that come of it. */
export interface Audio {
  bytes: Buffer<ArrayBuffer>
  /** The paths of files for the client. */
  file: string
  /** A form with the audio as its part `file`, and what its Content-Type is. */
  formFile: string
  formType: string
  /** The first byte of the range, and a file with its bytes. */
  rangeFrom: number
  rangeFile: string
}

const BOUNDARY = 'voicemaild-bench-7d2f0c51b6'

export async function writeAudio (folder: string, totalBytes: number): Promise<Audio> {
  const bytes = wavOf(totalBytes)
  const [file, formFile, rangeFile] = ['wav', 'form', 'range'].map(kind => join(folder, `${totalBytes}.${kind}`)) as [string, string, string]
  const rangeFrom = Math.floor((totalBytes - RANGE_BYTES) / 2)
  await writeFile(file, bytes)
  await writeFile(formFile, Buffer.concat([
    Buffer.from(`--${BOUNDARY}\r\nContent-Disposition: form-data; name="sip_from"\r\n\r\nsip:alice@sip.example.org\r\n` +
      `--${BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="message.wav"\r\nContent-Type: audio/wav\r\n\r\n`),
    bytes,
    Buffer.from(`\r\n--${BOUNDARY}--\r\n`)
  ]))
  await writeFile(rangeFile, bytes.subarray(rangeFrom, rangeFrom + RANGE_BYTES))
  return { bytes, file, formFile, formType: `multipart/form-data; boundary=${BOUNDARY}`, rangeFrom, rangeFile }
}

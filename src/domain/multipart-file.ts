import { AppError } from '../errors.js'
import { parseHeaderValue } from './header-value.js'

const CRLF = Buffer.from('\r\n')
const HEADERS_END = Buffer.from('\r\n\r\n')
const MAX_HEADER_BYTES = 16 * 1024
const MAX_PARTS = 100
/** RFC 2046 allows 70. A long one, with a body in tiny chunks, would cost a comparison of its whole length for every chunk. */
const MAX_BOUNDARY_LENGTH = 200
/** What may stand around the file: other parts, headers, boundaries, preamble and epilogue. */
export const MAX_AROUND_BYTES = 64 * 1024

/** A part as it arrives. */
export interface FilePart { declaredType: string | undefined, chunks: AsyncIterable<Uint8Array> }

/**
 * Finds the first part named `file` in a `multipart/form-data` body (RFC 7578, RFC 2046 section 5.1), with or without a filename.
 * Its chunks end only when the whole body has ended well. Throws `malformed_multipart`, `file_part_missing`,
 * `upload_too_large` for too much around the file, and whatever `body` throws.
 */
export async function readFilePart (contentType: string, body: AsyncIterable<Uint8Array>): Promise<FilePart> {
  const boundary = parseHeaderValue(contentType).parameters.get('boundary') ?? ''
  if (boundary === '') throw malformed('a boundary in Content-Type', 'none')
  if (boundary.length > MAX_BOUNDARY_LENGTH) throw malformed(`a boundary of at most ${MAX_BOUNDARY_LENGTH} characters`, `${boundary.length}`)
  const delimiter = Buffer.from(`\r\n--${boundary}`, 'latin1')
  const scanner = new Scanner(body)
  await scanner.skipTo(delimiter)
  for (let parts = 0; await scanner.beginsPart(); parts++) {
    if (parts === MAX_PARTS) throw malformed(`at most ${MAX_PARTS} parts before the file`, 'more')
    const headers = parsePartHeaders(await scanner.textTo(HEADERS_END))
    const { value, parameters } = parseHeaderValue(headers.get('content-disposition') ?? '')
    if (value === 'form-data' && parameters.get('name') === 'file') {
      return { declaredType: headers.get('content-type'), chunks: fileThenRest(scanner, delimiter) }
    }
    scanner.unread(CRLF) // An empty part has its delimiter right after its headers.
    await scanner.skipTo(delimiter)
  }
  throw new AppError('file_part_missing', 'The form has no part named "file".', { errors: { file: ['is required'] } })
}

async function * fileThenRest (scanner: Scanner, delimiter: Buffer): AsyncGenerator<Uint8Array> {
  scanner.unread(CRLF)
  let unreadBytes = CRLF.length
  for await (const chunk of scanner.upTo(delimiter)) {
    const bytes = chunk.subarray(unreadBytes)
    unreadBytes = Math.max(0, unreadBytes - chunk.length)
    if (bytes.length > 0) yield bytes
  }
  while (await scanner.beginsPart()) await scanner.skipTo(delimiter)
  await scanner.skipToEnd()
}

/** Cuts a body at delimiters, and holds no more of it than one chunk and the length of a delimiter. */
class Scanner {
  readonly #chunks: AsyncIterator<Uint8Array>
  /** A body may begin with its delimiter, whose line break stands before the first byte then. */
  #rest: Buffer = CRLF
  #aroundBytes = 0

  constructor (body: AsyncIterable<Uint8Array>) {
    this.#chunks = body[Symbol.asyncIterator]()
  }

  /** Yields what stands before the delimiter, and takes the delimiter itself away. */
  async * upTo (delimiter: Buffer): AsyncGenerator<Buffer> {
    for (;;) {
      const at = this.#rest.indexOf(delimiter)
      if (at !== -1) {
        const before = this.#rest.subarray(0, at)
        this.#rest = this.#rest.subarray(at + delimiter.length)
        if (at > 0) yield before
        return
      }
      // The end of what there is may be the beginning of a delimiter.
      const safe = this.#rest.length - delimiter.length + 1
      if (safe > 0) {
        const before = this.#rest.subarray(0, safe)
        this.#rest = this.#rest.subarray(safe)
        yield before
      }
      if (!await this.#more()) throw malformed('the closing boundary', 'the end of the body')
    }
  }

  async skipTo (delimiter: Buffer): Promise<void> {
    for await (const { length } of this.upTo(delimiter)) this.#countAround(length)
    this.#countAround(delimiter.length)
  }

  async textTo (delimiter: Buffer): Promise<string> {
    let text = ''
    for await (const chunk of this.upTo(delimiter)) {
      text += chunk.toString('latin1')
      if (text.length > MAX_HEADER_BYTES) throw malformed(`at most ${MAX_HEADER_BYTES} bytes of headers in a part`, 'more')
    }
    this.#countAround(text.length)
    return text
  }

  /** Right after a delimiter: whether a part follows, or the two dashes that close the body. */
  async beginsPart (): Promise<boolean> {
    while (this.#rest.length < 2) {
      if (!await this.#more()) throw malformed('the closing boundary', 'the end of the body')
    }
    return this.#rest.toString('latin1', 0, 2) !== '--'
  }

  unread (bytes: Buffer): void {
    this.#rest = Buffer.concat([bytes, this.#rest])
  }

  /** Nothing counts any more, but the body has to come to its end. */
  async skipToEnd (): Promise<void> {
    do {
      this.#countAround(this.#rest.length)
      this.#rest = Buffer.alloc(0)
    } while (await this.#more())
  }

  async #more (): Promise<boolean> {
    const { done = false, value } = await this.#chunks.next()
    if (done) return false
    const chunk = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    return true
  }

  #countAround (bytes: number): void {
    this.#aroundBytes += bytes
    if (this.#aroundBytes > MAX_AROUND_BYTES) {
      throw new AppError('upload_too_large', 'The form has too much around its file.', { expected: MAX_AROUND_BYTES, found: this.#aroundBytes })
    }
  }
}

/** By lower-case name. What stands before the first line break is the rest of the delimiter's line. */
function parsePartHeaders (text: string): Map<string, string> {
  const [, ...lines] = text.replace(/\r\n[ \t]+/g, ' ').split('\r\n')
  return new Map(lines.map(line => {
    const colon = line.indexOf(':')
    return [line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim()]
  }))
}

function malformed (expected: string, found: string): AppError {
  return new AppError('malformed_multipart', `The multipart body is malformed: expected ${expected}, found ${found}.`, { expected, found })
}

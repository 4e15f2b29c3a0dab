import { expectWord, need, refusal, type Reading } from './byte-reading.js'

/** How a page begins: the capture pattern and stream structure version 0 (RFC 3533 section 6). */
const CAPTURE = 'OggS\0'
const CAPTURE_BYTES = Buffer.from(CAPTURE)

/** A page's header, read; its body comes next. */
export interface OggPage {
  /** The first packet here began on a page before. */
  isContinued: boolean
  isFirstOfStream: boolean
  isLastOfStream: boolean
  /** The position, in samples, at the end of the last packet that ends here; negative where there is none to tell. */
  granule: number
  serial: number
  /** The length of each segment: 255 goes on in the next one, less ends a packet (RFC 3533 section 5). */
  lacing: Buffer
  /** Bytes of the body. */
  size: number
  checksum: number
  /** All of the header, with zeros where the checksum stands: what the checksum begins with, before the body. */
  header: readonly Buffer[]
}

/** What of a packet lies on a page. */
export interface PacketPart {
  /** The byte of the body where it begins. */
  at: number
  length: number
  /** Whether the packet begins and ends on this page. */
  begins: boolean
  ends: boolean
}

/** The packets that segments make up (RFC 3533 section 5). */
export function packetsOf ({ lacing, isContinued }: OggPage): PacketPart[] {
  const packets: PacketPart[] = []
  let at = 0
  let length = 0
  lacing.forEach((segment, index) => {
    length += segment
    const ends = segment < 255
    if (!ends && index < lacing.length - 1) return
    packets.push({ at, length, begins: packets.length > 0 || !isContinued, ends })
    at += length
    length = 0
  })
  return packets
}

/** The start of a page that has to stand here. */
export function * expectCapture (cut: string): Reading<void> {
  yield * expectWord(['OggS'], 'This is no Ogg file: a page does not begin where one should.', cut)
  yield * expectWord(['\0'], 'The Ogg file has a page of an unknown version.', cut)
}

/** Searches for the start of a page; says whether there is one. */
export function * findCapture (): Reading<boolean> {
  let matched = 0
  yield {
    bytes: Infinity,
    look: piece => {
      for (let at = 0; at < piece.length; at++) {
        const byte = piece[at]
        if (byte === CAPTURE.charCodeAt(matched)) matched++
        else matched = byte === CAPTURE.charCodeAt(0) ? 1 : 0
        if (matched === CAPTURE.length) return at + 1
      }
      return undefined
    }
  }
  return matched === CAPTURE.length
}

/** Reads the page header after its start (RFC 3533 section 6). The first page of a file has to be the first of a stream. */
export function * readPage (isFirstOfFile: boolean, cut: string): Reading<OggPage> {
  const flagByte = yield * need(1, cut)
  const flags = flagByte.readUInt8()
  const isFirstOfStream = (flags & 2) !== 0
  if (isFirstOfFile && !isFirstOfStream) throw refusal('The Ogg file does not begin with the first page of a stream.', 'a page with flag 2', flags)
  const fields = yield * need(21, cut)
  const lacing = yield * need(fields.readUInt8(20), cut)
  const checksum = fields.readUInt32LE(16)
  return {
    isContinued: (flags & 1) !== 0,
    isFirstOfStream,
    isLastOfStream: (flags & 4) !== 0,
    granule: Number(fields.readBigInt64LE(0)),
    serial: fields.readUInt32LE(8),
    lacing,
    size: lacing.reduce((sum, length) => sum + length, 0),
    checksum,
    header: [CAPTURE_BYTES, flagByte, fields.fill(0, 16, 20), lacing]
  }
}

/** What one byte more does to the checksum, for each value of the byte: the polynomial 0x04C11DB7, not reflected. */
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 24
  for (let bit = 0; bit < 8; bit++) crc = crc < 0 ? (crc << 1) ^ 0x04c11db7 : crc << 1
  return crc >>> 0
})

/** The checksum of a page: over all of it, with its own four bytes taken as zero (RFC 3533 section 6). */
export class OggCrc {
  #crc = 0

  /** Begins with a page's header; the body is to be added. */
  constructor (page: OggPage) {
    for (const part of page.header) this.add(part)
  }

  add (bytes: Uint8Array): void {
    for (const byte of bytes) this.#crc = (this.#crc << 8) ^ (CRC_TABLE[(this.#crc >>> 24) ^ byte] ?? 0)
  }

  get value (): number {
    return this.#crc >>> 0
  }
}

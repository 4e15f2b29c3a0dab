/** Makes WAV and Ogg Opus files byte by byte, right or wrong as a test wants them. Shares no code with what it tests. */

export const u16 = (value: number) => Buffer.from(Uint16Array.of(value).buffer)
export const u32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer)
export const u64 = (value: bigint) => Buffer.from(BigUint64Array.of(value).buffer)

/** A RIFF chunk, padded; `declared` is the length that it claims. */
export function chunk (id: string, body: Uint8Array, declared = body.length): Buffer {
  return Buffer.concat([Buffer.from(id, 'latin1'), u32(declared), body, Buffer.alloc(body.length % 2)])
}

/** A RIFF/WAVE file of these chunks. */
export function wav (chunks: readonly Uint8Array[], form = 'RIFF', declared?: number): Buffer {
  const body = Buffer.concat(chunks)
  return Buffer.concat([Buffer.from(form), u32(declared ?? body.length + 4), Buffer.from('WAVE'), body])
}

export interface Fmt { code?: number, channels?: number, rate?: number, byteRate?: number, block?: number, bits?: number, extra?: Uint8Array }

/** A `fmt ` chunk: 16 bit PCM, one channel, 8,000 samples a second, unless told. */
export function fmt ({ code = 1, channels = 1, rate = 8000, bits = 16, block = channels * bits / 8, byteRate = rate * block, extra = Buffer.alloc(0) }: Fmt = {}): Buffer {
  return chunk('fmt ', Buffer.concat([u16(code), u16(channels), u32(rate), u32(byteRate), u16(block), u16(bits), extra]))
}

/** WAVEFORMATEXTENSIBLE's last 24 bytes. */
export function extension (subformat: number, tail = '000000001000800000aa00389b71', validBits = 16): Buffer {
  return Buffer.concat([u16(22), u16(validBits), u32(4), u16(subformat), Buffer.from(tail, 'hex')])
}

/** Sound that is no silence, so that nothing takes it for padding. */
export const sound = (bytes: number) => Buffer.alloc(bytes, 'sound')

export interface PageOptions {
  /** 1 continued, 2 first of its stream, 4 last. */
  flags?: number
  granule?: bigint
  serial?: number
  /** The last packet goes on on the next page; its length here must be a multiple of 255. */
  open?: boolean
  checksum?: number
}

/** An Ogg page of these packets. */
export function page (packets: readonly Uint8Array[], { flags = 0, granule = 0n, serial = 7, open = false, checksum }: PageOptions = {}): Buffer {
  const lacing = packets.flatMap(({ length }, index) => {
    const segments = Array<number>(Math.floor(length / 255)).fill(255)
    return open && index === packets.length - 1 ? segments : [...segments, length % 255]
  })
  const bytes = Buffer.concat([Buffer.from('OggS'), Buffer.of(0, flags), u64(BigInt.asUintN(64, granule)), u32(serial), u32(0), u32(0), Buffer.of(lacing.length, ...lacing), ...packets])
  bytes.writeUInt32LE(checksum ?? oggChecksum(bytes), 22)
  return bytes
}

/** Bit by bit, as RFC 3533 defines it. */
function oggChecksum (bytes: Uint8Array): number {
  let crc = 0
  for (const byte of bytes) {
    crc ^= byte << 24
    for (let bit = 0; bit < 8; bit++) crc = crc < 0 ? (crc << 1) ^ 0x04c11db7 : crc << 1
  }
  return crc >>> 0
}

export interface Head { version?: number, channels?: number, preSkip?: number, family?: number, mapping?: readonly number[] }

export function opusHead ({ version = 1, channels = 1, preSkip = 312, family = 0, mapping = [] }: Head = {}): Buffer {
  return Buffer.concat([Buffer.from('OpusHead'), Buffer.of(version, channels), u16(preSkip), u32(16000), u16(0), Buffer.of(family, ...mapping)])
}

export const opusTags = (bytes = 0) => Buffer.concat([Buffer.from('OpusTags'), u32(4), Buffer.from('test'), u32(0), Buffer.alloc(bytes)])

/** A packet of one frame of 20 ms (960 samples). */
export const packet = (bytes = 40) => Buffer.concat([Buffer.of(0x48), Buffer.alloc(bytes - 1, 1)])

export const packets = (count: number, bytes = 40) => Array<Buffer>(count).fill(packet(bytes))

/** The two header pages of a stream. */
export function headers (head: Head = {}, serial = 7): Buffer {
  return Buffer.concat([page([opusHead(head)], { flags: 2, serial }), page([opusTags()], { serial })])
}

/** A whole stream of one second (50 packets), less `trimmed` samples, the pre-skip added so that it is just as long. */
export function second ({ serial = 7, trimmed = 0 } = {}): Buffer {
  return Buffer.concat([
    headers({ preSkip: 480 }, serial),
    page(packets(25), { granule: 24_000n, serial }),
    page(packets(26), { granule: BigInt(48_480 - trimmed), flags: 4, serial })
  ])
}

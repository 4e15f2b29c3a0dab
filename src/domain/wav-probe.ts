import { expectWord, need, refusal, skip, take, type Reading } from './byte-reading.js'

const CUT = 'The WAV file ends within its header.'
/** Written for "not known": by a recorder that cannot seek, and in RF64 for "see ds64". */
const UNKNOWN_32 = 0xffffffff
const CR_LF = Buffer.from('\r\n')

/** What may follow a `data` chunk that is honestly empty, instead of the sound of a recorder that never filled in the size. */
const OTHER_CHUNKS = new Set(['fmt ', 'fact', 'data', 'LIST', 'JUNK', 'junk', 'PAD ', 'FLLR', 'bext', 'cart', 'iXML', 'cue ', 'smpl', 'inst', 'PEAK', 'id3 ', 'ID3 ', 'afsp'])

/**
 * Reads a RIFF/WAVE file (Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0", 1991, and "New
 * Multimedia Data Types and Data Techniques", 1994) or an RF64/WAVE one (EBU Tech 3306). Returns the milliseconds of its sound.
 *
 * No size is believed upwards: recorders write their sizes before they know them (0, 0xFFFFFFFF, 44 too many). What is there
 * counts, up to what the first `data` chunk declares; bytes after it are chunks or rubbish (CR LF), never sound. A chunk that
 * nobody knows is passed over, whatever its name, because a refusal loses a message for good.
 */
export function * readWav (): Reading<number> {
  const form = yield * expectWord(['RIFF', 'RF64'], 'This is no WAV file: it does not begin with RIFF or RF64.', CUT)
  yield * need(4, CUT)
  yield * expectWord(['WAVE'], 'This is no WAV file: it is a RIFF file of another form.', CUT)

  let format: Format | undefined
  // From ds64, where there is one.
  let long = { data: 0, samples: 0 }
  let samples = 0
  let sound: Sound | undefined
  let next: Buffer | undefined
  for (;;) {
    const name = next ?? (yield * take(4))
    const length = yield * take(4)
    if (length.length < 4) break
    const id = name.toString('latin1')
    const size = length.readUInt32LE(0)
    next = undefined

    if (id === 'fmt ' && format === undefined) {
      format = yield * readFormat(size)
    } else if (id === 'data' && sound === undefined) {
      if (format === undefined) throw refusal('The WAV file has sound before its format.', 'fmt', 'data')
      sound = yield * readSound(size === UNKNOWN_32 ? long.data : size)
      next = sound.next
      if (next !== undefined) sound = undefined
    } else if (id === 'ds64' && form === 'RF64' && size >= 24) {
      const sizes = yield * need(24, CUT)
      long = { data: Number(sizes.readBigUInt64LE(8)), samples: Number(sizes.readBigUInt64LE(16)) }
      yield * skipRest(size, 24)
    } else if (id === 'fact' && size >= 4) {
      const count = yield * take(4)
      if (count.length === 4) samples = count.readUInt32LE(0)
      yield * skipRest(size, 4)
    } else {
      yield * skipRest(size, 0)
    }
  }

  if (format === undefined) throw refusal('The WAV file has no fmt chunk.', 'fmt', 'the end')
  const bytes = sound?.bytes ?? 0
  if (bytes < format.block) throw refusal('The WAV file has no sound in it.', `at least ${format.block} bytes of sound`, bytes)
  return milliseconds(format, bytes, samples === UNKNOWN_32 ? long.samples : samples)
}

/** Passes over what is left of a chunk of which `taken` bytes were read; a chunk of odd length is followed by one more byte. */
function * skipRest (size: number, taken: number): Reading<void> {
  yield * skip(size - taken + size % 2)
}

interface Sound {
  bytes: number
  /** The name of another chunk, found where the sound of a chunk of declared length 0 would begin. */
  next?: Buffer
}

/** Passes over a `data` chunk. One whose declared length is not known goes on to the end of the file. */
function * readSound (declared: number): Reading<Sound> {
  const size = declared === 0 || declared === UNKNOWN_32 ? Infinity : declared
  const first = yield * take(Math.min(size, 4))
  if (declared === 0 && OTHER_CHUNKS.has(first.toString('latin1'))) return { bytes: 0, next: first }
  // A recorder that ends its request body with CR LF sends these two even where it has recorded nothing.
  if (first.equals(CR_LF) && size !== CR_LF.length) return { bytes: 0 }
  const bytes = first.length + (yield * skip(size - first.length))
  yield * skip(bytes === size ? size % 2 : 0)
  return { bytes }
}

/** What the `fmt ` chunk says of the sound. */
interface Format {
  /** Samples (of all channels at once) per second. */
  rate: number
  /** Bytes of the smallest piece that can be decoded: a sample of all channels, or the block of a compressed format. */
  block: number
  /** Bytes per second of a compressed format, in which a sample has no fixed number of bytes. */
  byteRate?: number
}

const PCM = 0x0001
const FLOAT = 0x0003
const A_LAW = 0x0006
const MU_LAW = 0x0007
const EXTENSIBLE = 0xfffe
/** A format code becomes the SubFormat of WAVEFORMATEXTENSIBLE by these 14 bytes after it (KSDATAFORMAT_SUBTYPE_*). */
const SUBFORMAT_TAIL = Buffer.from('000000001000800000aa00389b71', 'hex')

/** WAVEFORMAT and what extends it (mmreg.h): refused at the field of which no player could make sound. */
function * readFormat (size: number): Reading<Format> {
  if (size < 16) throw refusal('The fmt chunk of the WAV file is too short.', 'at least 16 bytes', size)
  let code = (yield * need(2, CUT)).readUInt16LE()
  if (code === EXTENSIBLE && size < 40) throw refusal('The fmt chunk of the WAV file is too short for its SubFormat.', 'at least 40 bytes', size)
  const channels = (yield * need(2, CUT)).readUInt16LE()
  if (channels === 0) throw refusal('The WAV file has no channel.', 'at least 1 channel', channels)
  const rate = (yield * need(4, CUT)).readUInt32LE()
  if (rate === 0) throw refusal('The WAV file has no sample rate.', 'at least 1 sample per second', rate)
  const byteRate = (yield * need(4, CUT)).readUInt32LE()
  const block = (yield * need(2, CUT)).readUInt16LE()
  if (block === 0) throw refusal('The WAV file has blocks without a byte.', 'blocks of at least 1 byte', block)
  const bits = (yield * need(2, CUT)).readUInt16LE()
  if (code === EXTENSIBLE) {
    const subformat = (yield * need(24, CUT)).subarray(8)
    // 0 is no format's code: a SubFormat that has none is taken as a compressed format nobody knows.
    code = subformat.subarray(2).equals(SUBFORMAT_TAIL) ? subformat.readUInt16LE() : 0
    yield * skipRest(size, 40)
  } else {
    yield * skipRest(size, 16)
  }

  // One byte a sample by definition; writers disagree on what the other fields should say then.
  if (code === A_LAW || code === MU_LAW) return { rate, block: channels }
  if (code === PCM || code === FLOAT) {
    // A sample may lie in a larger container (24 bits in 4 bytes), never in a smaller one.
    const container = block / channels
    const fits = Number.isInteger(container) && container <= 8 && bits > 0 && bits <= container * 8
    if (!fits) throw refusal('The WAV file has samples that do not fit their blocks.', `blocks for ${channels} × ${bits} bits`, `${block} bytes`)
    return { rate, block }
  }
  if (byteRate === 0) throw refusal('The WAV file has a compressed format without a byte rate.', 'at least 1 byte per second', byteRate)
  return { rate, block, byteRate }
}

/**
 * How long `bytes` of sound are. For a compressed format the declared number of samples is the better figure (its last block is
 * filled up, its byte rate rounded), and is believed where it agrees with the bytes that are there: up to them, down to half.
 */
function milliseconds ({ rate, block, byteRate }: Format, bytes: number, declaredSamples: number): number {
  if (byteRate === undefined) return Math.floor(bytes / block) / rate * 1000
  const declared = declaredSamples / rate
  const agrees = declared <= bytes / (byteRate - 0.5) && declared >= bytes / byteRate / 2
  return (agrees ? declared : bytes / byteRate) * 1000
}

/** What to send of a file: all of it, its bytes from the first to the last one inclusive, or nothing, since it ends before. */
export type ByteRange =
  | { kind: 'whole' }
  | { kind: 'part', firstByte: number, lastByte: number }
  | { kind: 'unsatisfiable' }

const WHOLE: ByteRange = { kind: 'whole' }
const UNSATISFIABLE: ByteRange = { kind: 'unsatisfiable' }

/**
 * Reads a `Range` header (RFC 9110 section 14.2) for a file of `sizeBytes`. All three forms of one range are honoured:
 * `0-1`, `5-` and `-5`. What is no such header (another unit, a syntax error, a last byte before the first) has to be
 * ignored, and several ranges may be: the answer is the whole file.
 */
export function parseByteRange (header: string | undefined, sizeBytes: number): ByteRange {
  const set = /^bytes=(.*)$/i.exec(header ?? '')?.[1]
  // Empty elements of a list count for nothing (section 5.6.1.2); white space may stand around commas, not after the `=`.
  const specs = (set ?? '').split(',').map((spec, index) => index === 0 ? spec.trimEnd() : spec.trim()).filter(spec => spec.trim() !== '')
  const [spec] = specs
  if (spec === undefined || specs.length > 1) return WHOLE

  const [, first, last] = /^([0-9]*)-([0-9]*)$/.exec(spec) ?? []
  if (first === undefined || last === undefined) return WHOLE
  if (first !== '') return fromFirst(BigInt(first), last === '' ? undefined : BigInt(last), sizeBytes)
  return last === '' ? WHOLE : suffix(BigInt(last), sizeBytes)
}

// A header may name positions that no double can hold; big integers compare them exactly.
function fromFirst (first: bigint, last: bigint | undefined, sizeBytes: number): ByteRange {
  if (last !== undefined && last < first) return WHOLE
  if (first >= sizeBytes) return UNSATISFIABLE
  const lastByte = last === undefined || last >= sizeBytes ? sizeBytes - 1 : Number(last)
  return { kind: 'part', firstByte: Number(first), lastByte }
}

function suffix (length: bigint, sizeBytes: number): ByteRange {
  if (length === 0n) return UNSATISFIABLE
  // "The entire representation is used" (section 14.1.2), and of an empty one no Content-Range could tell.
  if (sizeBytes === 0) return WHOLE
  return { kind: 'part', firstByte: length >= sizeBytes ? 0 : sizeBytes - Number(length), lastByte: sizeBytes - 1 }
}

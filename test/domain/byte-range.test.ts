import fc from 'fast-check'
import t from 'tap'
import { parseByteRange } from '../../src/domain/byte-range.js'

const part = (firstByte: number, lastByte: number) => ({ kind: 'part', firstByte, lastByte })
const HUGE = '9'.repeat(400)

t.test('all three forms of one range are honoured', async t => {
  for (const [header, expected] of [
    ['bytes=0-1', part(0, 1)],
    ['bytes=0-0', part(0, 0)],
    ['bytes=99-99', part(99, 99)],
    ['bytes=10-', part(10, 99)],
    ['bytes=-10', part(90, 99)],
    ['bytes=-1', part(99, 99)],
    ['bytes=0-', part(0, 99)],
    ['bytes=007-009', part(7, 9)]
  ] as const) t.strictSame(parseByteRange(header, 100), expected, header)
})

t.test('a range that ends behind the file ends with the file', async t => {
  for (const header of ['bytes=0-100', `bytes=0-${HUGE}`, 'bytes=-101', `bytes=-${HUGE}`]) {
    t.strictSame(parseByteRange(header, 100), part(0, 99), header)
  }
})

t.test('a range that begins behind the file, or is the last no bytes, does not fit', async t => {
  for (const header of ['bytes=100-', 'bytes=100-200', 'bytes=-0', 'bytes=-000', `bytes=${HUGE}-`, 'bytes=9007199254740992-9007199254740993']) {
    t.strictSame(parseByteRange(header, 100), { kind: 'unsatisfiable' }, header)
  }
})

t.test('of an empty file no range fits, but any last bytes are all there is', async t => {
  t.strictSame(parseByteRange('bytes=0-', 0), { kind: 'unsatisfiable' })
  t.strictSame(parseByteRange('bytes=0-0', 0), { kind: 'unsatisfiable' })
  t.strictSame(parseByteRange('bytes=-5', 0), { kind: 'whole' })
})

t.test('no range, several, another unit, or a syntax error is the whole file', async t => {
  for (const header of [
    undefined, '', 'bytes', 'bytes=', 'bytes=,', 'bytes=-', 'bytes=--1', 'bytes=1', 'bytes=a-b', 'bytes=1-2-3', 'bytes=+1-2', 'bytes=1.0-2', 'bytes=0x1-2',
    'bytes=5-2', 'bytes=9007199254740993-9007199254740992', `bytes=${HUGE}9-${HUGE}`,
    'bytes=0-1,5-6', 'bytes=0-1,-1', 'bytes=200-,300-', 'bytes=0-1,x',
    'seconds=0-1', 'byte=0-1', ' bytes=0-1', 'bytes =0-1', 'bytes= 0-1', 'bytes=0 - 1', 'bytes=0-1;', 'bytes=0-1\n', 'bytes=١-٢'
  ]) t.strictSame(parseByteRange(header, 100), { kind: 'whole' }, JSON.stringify(header))
})

t.test('the unit has no case, and empty elements and white space around commas count for nothing', async t => {
  for (const header of ['BYTES=0-1', 'Bytes=0-1', 'bytes=0-1,', 'bytes=,0-1', 'bytes=,\t, 0-1 \t, ,', 'bytes= ,0-1', 'bytes=0-1 ']) {
    t.strictSame(parseByteRange(header, 100), part(0, 1), JSON.stringify(header))
  }
})

t.test('a range selects the bytes that filtering every position by the definition selects', async () => {
  const position = fc.option(fc.nat(40), { nil: undefined })
  fc.assert(fc.property(position, position, fc.integer({ min: 1, max: 30 }), (first, last, size) => {
    const positions = Array.from({ length: size }, (_, index) => index)
    const wrong = first === undefined ? last === undefined : last !== undefined && last < first
    const selected = positions.filter(index => {
      if (wrong) return true
      if (first === undefined) return index >= size - (last ?? 0)
      return index >= first && index <= (last ?? Infinity)
    })
    const range = parseByteRange(`bytes=${first ?? ''}-${last ?? ''}`, size)
    if (range.kind === 'whole') return wrong
    if (range.kind === 'unsatisfiable') return selected.length === 0
    return !wrong && range.firstByte === selected.at(0) && range.lastByte === selected.at(-1)
  }), { numRuns: 2000 })
})

t.test('whatever the header, the answer lies within the file', async () => {
  const piece = fc.constantFrom('bytes=', '-', ',', ' ', '\t', '0', '1', '99', HUGE, '=', 'x', '"')
  const header = fc.oneof(fc.array(piece).map(pieces => `bytes=${pieces.join('')}`), fc.string(), fc.constantFrom(' ', ',', '9', '-', ' ,').map(each => `bytes=${each.repeat(10_000)}!`))
  fc.assert(fc.property(header, fc.maxSafeNat(), (header, size) => {
    const range = parseByteRange(header, size)
    if (range.kind !== 'part') return true
    return Number.isSafeInteger(range.firstByte) && range.firstByte >= 0 && range.firstByte <= range.lastByte && range.lastByte < size
  }), { numRuns: 2000 })
})

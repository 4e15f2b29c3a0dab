import fc from 'fast-check'
import t from 'tap'
import { evaluatePreconditions, rangeStillApplies } from '../../src/domain/preconditions.js'

const validators = { etag: '"a,b"', lastModifiedMs: Date.UTC(2025, 9, 9, 12, 59, 32, 789) }
const BEFORE = 'Thu, 09 Oct 2025 12:59:31 GMT'
const SAME = 'Thu, 09 Oct 2025 12:59:32 GMT'
const AFTER = 'Thu, 09 Oct 2025 12:59:33 GMT'

const listsWithTag = ['"a,b"', '"x", "a,b"', '"a,b","x"', ' ,\t"x" ,, "a,b" , ', '"", "a,b"', '"é", "a,b"', 'W/"a,b", "a,b"', '"a,b", garbage']
const listsWithoutTag = ['', ',', 'a,b', '"a"', '"a, b"', '"A,B"', '"x", "y"', 'garbage, "a,b"', '"x" "a,b"', '"a,b', '*, "x"', '"*"', 'w/"a,b"', 'W/ "a,b"']

t.test('without a condition the request proceeds', async t => {
  t.equal(evaluatePreconditions({}, validators), 'proceed')
  t.equal(evaluatePreconditions({ ifRange: '"other"' }, validators), 'proceed')
})

t.test('If-Match fails where the list has no strong tag that is the same', async t => {
  for (const ifMatch of ['*', ...listsWithTag]) t.equal(evaluatePreconditions({ ifMatch }, validators), 'proceed', ifMatch)
  for (const ifMatch of ['W/"a,b"', ...listsWithoutTag]) t.equal(evaluatePreconditions({ ifMatch }, validators), 'precondition_failed', ifMatch)
})

t.test('If-None-Match is not modified where the list has the tag, weak or strong', async t => {
  for (const ifNoneMatch of ['*', ' * ', 'W/"a,b"', ...listsWithTag]) t.equal(evaluatePreconditions({ ifNoneMatch }, validators), 'not_modified', ifNoneMatch)
  for (const ifNoneMatch of listsWithoutTag) t.equal(evaluatePreconditions({ ifNoneMatch }, validators), 'proceed', ifNoneMatch)
})

t.test('dates are compared to the second, and what is no date is ignored', async t => {
  for (const [date, since, unless] of [
    [BEFORE, 'proceed', 'precondition_failed'],
    [SAME, 'not_modified', 'proceed'],
    [AFTER, 'not_modified', 'proceed'],
    ['Thursday, 09-Oct-25 12:59:32 GMT', 'not_modified', 'proceed'],
    ['Thu Oct  9 12:59:31 2025', 'proceed', 'precondition_failed'],
    ['2025-10-09T12:59:32Z', 'proceed', 'proceed'],
    ['', 'proceed', 'proceed']
  ] as const) {
    t.equal(evaluatePreconditions({ ifModifiedSince: date }, validators), since, `If-Modified-Since: ${date}`)
    t.equal(evaluatePreconditions({ ifUnmodifiedSince: date }, validators), unless, `If-Unmodified-Since: ${date}`)
  }
})

t.test('a condition on tags outranks the one on a date, and 412 outranks 304', async t => {
  for (const [conditions, expected] of [
    [{ ifMatch: '"a,b"', ifUnmodifiedSince: BEFORE }, 'proceed'],
    [{ ifMatch: '"x"', ifUnmodifiedSince: AFTER }, 'precondition_failed'],
    [{ ifNoneMatch: '"x"', ifModifiedSince: AFTER }, 'proceed'],
    [{ ifNoneMatch: '"a,b"', ifModifiedSince: BEFORE }, 'not_modified'],
    [{ ifMatch: '"x"', ifNoneMatch: '"a,b"' }, 'precondition_failed'],
    [{ ifMatch: '"a,b"', ifNoneMatch: '"a,b"' }, 'not_modified'],
    [{ ifUnmodifiedSince: BEFORE, ifModifiedSince: AFTER }, 'precondition_failed'],
    [{ ifUnmodifiedSince: AFTER, ifModifiedSince: AFTER }, 'not_modified']
  ] as const) t.equal(evaluatePreconditions(conditions, validators), expected, JSON.stringify(conditions))
})

t.test('a range applies where If-Range is absent, the strong tag, or the very second of the change', async t => {
  for (const ifRange of [undefined, '"a,b"', SAME, 'Thursday, 09-Oct-25 12:59:32 GMT', 'Thu Oct  9 12:59:32 2025']) t.ok(rangeStillApplies(ifRange, validators), String(ifRange))
  for (const ifRange of ['', '*', 'W/"a,b"', '"x"', '"x", "a,b"', 'a,b', BEFORE, AFTER, '2025-10-09T12:59:32Z']) t.notOk(rangeStillApplies(ifRange, validators), ifRange)
})

t.test('a list has the tag where one of its elements is the tag', async () => {
  const opaque = fc.string({ unit: fc.constantFrom('a', 'b', ',', '/', 'W', '*', '!'), maxLength: 4 }).map(text => `"${text}"`)
  const tags = fc.array(fc.record({ weak: fc.boolean(), opaque }), { maxLength: 5 })
  const separator = fc.constantFrom(',', ', ', ' ,\t', ',,', ' , ,')
  fc.assert(fc.property(tags, separator, opaque, (tags, separator, etag) => {
    const list = tags.map(({ weak, opaque }) => (weak ? 'W/' : '') + opaque).join(separator)
    const current = { ...validators, etag }
    const strong = tags.some(tag => !tag.weak && tag.opaque === etag)
    const either = tags.some(tag => tag.opaque === etag)
    return evaluatePreconditions({ ifMatch: list }, current) === (strong ? 'proceed' : 'precondition_failed') &&
      evaluatePreconditions({ ifNoneMatch: list }, current) === (either ? 'not_modified' : 'proceed')
  }), { numRuns: 1000 })
})

t.test('hostile conditions are answered, never thrown at', async () => {
  const piece = fc.constantFrom('"', 'W/', ',', ' ', '\t', '*', 'a', '"a,b"', 'é', '\0', SAME)
  const hostile = fc.array(piece, { minLength: 1, maxLength: 4 }).map(pieces => pieces.join('').repeat(2500).slice(0, 10_000))
  const value = fc.option(fc.oneof(hostile, fc.string()), { nil: undefined })
  fc.assert(fc.property(fc.record({ ifMatch: value, ifNoneMatch: value, ifModifiedSince: value, ifUnmodifiedSince: value }), conditions => {
    evaluatePreconditions(conditions, validators)
    rangeStillApplies(conditions.ifMatch, validators)
  }), { numRuns: 500 })
})

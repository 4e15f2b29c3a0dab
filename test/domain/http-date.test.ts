import fc from 'fast-check'
import t from 'tap'
import { parseHttpDate } from '../../src/domain/http-date.js'

const NEAR = Date.UTC(2025, 9, 9)

t.test('the three forms of an HTTP date tell the same second', async t => {
  const expected = Date.UTC(1994, 10, 6, 8, 49, 37)
  for (const text of ['Sun, 06 Nov 1994 08:49:37 GMT', 'Sunday, 06-Nov-94 08:49:37 GMT', 'Sun Nov  6 08:49:37 1994', 'Sun Nov 06 08:49:37 1994']) {
    t.equal(parseHttpDate(text, NEAR), expected, text)
  }
})

t.test('a year of two digits lies at most 50 years ahead', async t => {
  const yearOf = (digits: string, nearYear: number) => new Date(parseHttpDate(`Monday, 02-Mar-${digits} 00:00:00 GMT`, Date.UTC(nearYear, 0)) ?? NaN).getUTCFullYear()
  for (const [digits, near, year] of [['75', 2025, 2075], ['76', 2025, 1976], ['25', 2025, 2025], ['00', 2025, 2000], ['05', 2099, 2105], ['99', 1970, 1999]] as const) {
    t.equal(yearOf(digits, near), year, `${digits} near ${near}`)
  }
})

t.test('a leap second is the first second of the next minute', async t => {
  t.equal(parseHttpDate('Sat, 31 Dec 2016 23:59:60 GMT', NEAR), Date.UTC(2017, 0))
})

t.test('anything else is no date', async t => {
  for (const text of [
    '', '0', 'yesterday', '2025-10-09T12:59:32Z', 'Thu, 9 Oct 2025 12:59:32 GMT', 'Thu, 09 Oct 2025 12:59:32', 'Thu, 09 Oct 2025 12:59:32 UTC',
    'Thu, 09 Oct 2025 12:59:32 +0000', 'thu, 09 oct 2025 12:59:32 gmt', 'Thu, 09 Oct 2025 24:00:00 GMT', 'Thu, 09 Oct 2025 12:60:00 GMT',
    'Thu, 09 Oct 2025 12:59:61 GMT', 'Thu, 00 Oct 2025 12:59:32 GMT', 'Fri, 32 Oct 2025 12:59:32 GMT', 'Sat, 29 Feb 2025 12:59:32 GMT',
    'Thu, 09 Okt 2025 12:59:32 GMT', 'Thu, 09-Oct-25 12:59:32 GMT', 'Thursday, 09-Oct-2025 12:59:32 GMT', 'Thu Oct 9 12:59:32 2025',
    ' Thu, 09 Oct 2025 12:59:32 GMT', 'Thu, 09 Oct 2025 12:59:32 GMT\n'
  ]) t.equal(parseHttpDate(text, NEAR), undefined, JSON.stringify(text))
})

t.test('every second that JavaScript writes as an HTTP date is read back', async () => {
  const date = fc.date({ min: new Date(Date.UTC(1000, 0)), max: new Date(Date.UTC(9999, 11)), noInvalidDate: true })
  fc.assert(fc.property(date, date => parseHttpDate(date.toUTCString(), NEAR) === Math.floor(date.getTime() / 1000) * 1000), { numRuns: 500 })
})

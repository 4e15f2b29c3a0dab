const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

const MONTH = `(?<month>${MONTHS.join('|')})`
const TIME = '(?<hour>[01][0-9]|2[0-3]):(?<minute>[0-5][0-9]):(?<second>[0-5][0-9]|60)'
const DAY = '(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)'
const LONG_DAY = '(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day'

const FORMS = [
  new RegExp(`^${DAY}, (?<day>[0-9]{2}) ${MONTH} (?<year>[0-9]{4}) ${TIME} GMT$`), // IMF-fixdate
  new RegExp(`^${LONG_DAY}, (?<day>[0-9]{2})-${MONTH}-(?<year>[0-9]{2}) ${TIME} GMT$`), // RFC 850
  new RegExp(`^${DAY} ${MONTH} (?<day>[0-9]{2}| [0-9]) ${TIME} (?<year>[0-9]{4})$`) // asctime
]

/**
 * Reads an HTTP date in any of the three forms that a recipient must accept (RFC 9110 section 5.6.7), as milliseconds since
 * 1970; undefined where it is none or names a day that does not exist. Whether the weekday fits is not looked at.
 *
 * A year of two digits is the latest that lies no more than 50 years after `nearMs`. The RFC measures from now; any
 * moment of the same decades gives the same year, so a date known to the caller will do and no clock is needed.
 */
export function parseHttpDate (text: string, nearMs: number): number | undefined {
  for (const form of FORMS) {
    const groups = form.exec(text)?.groups
    if (groups === undefined) continue
    const { day = '', month = '', year = '', hour, minute, second } = groups
    const fullYear = year.length === 2 ? yearNear(nearMs, Number(year)) : Number(year)
    const date = new Date(Date.UTC(fullYear, MONTHS.indexOf(month), Number(day)))
    if (date.getUTCDate() !== Number(day)) return undefined
    return date.setUTCHours(Number(hour), Number(minute), Number(second))
  }
  return undefined
}

function yearNear (nearMs: number, lastTwoDigits: number): number {
  const latest = new Date(nearMs).getUTCFullYear() + 50
  return latest - (latest - lastTwoDigits) % 100
}

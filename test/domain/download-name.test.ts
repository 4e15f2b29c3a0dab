import fc from 'fast-check'
import t from 'tap'
import { downloadName } from '../../src/domain/download-name.js'

const AT = Date.UTC(2025, 9, 9, 12, 59, 32, 999)
const callerIn = (sipFrom: string) => downloadName(sipFrom, AT, 'audio/wav').replace(' 2025-10-09 12.59.32.wav', '')

t.test('the name tells caller, time in UTC, and type', async t => {
  t.equal(downloadName('sip:alice@sip.example.org', AT, 'audio/wav'), 'alice@sip.example.org 2025-10-09 12.59.32.wav')
  t.equal(downloadName('sip:+4930123@example.org;user=phone', 0, 'audio/opus'), '+4930123@example.org 1970-01-01 00.00.00.opus')
})

t.test('the caller is the user and the host, with what is unsafe in a name replaced, and never a password', async t => {
  for (const [sipFrom, caller] of [
    ['alice@Example.ORG:5060', 'alice@example.org'],
    ['sips:%61lice:secret@example.org;lr?a=b', 'alice@example.org'],
    ['sip:pbx.example.org', 'pbx.example.org'],
    ['sip:J%C3%BCrgen@example.org', 'J_rgen@example.org'],
    ['sip:a%2F..%2Fb;c?d*@example.org', 'a_.._b_c_d_@example.org'],
    ['sip:..%2F..%2Fetc@example.org', 'etc@example.org'],
    ['sip:-rf@example.org', 'rf@example.org'],
    ['sip:alice@[2001:db8::1]', 'alice@_2001_db8_1_'],
    ['not an address\r\n', 'not_an_address_'],
    ['\u202e', 'unknown'],
    ['...', 'unknown'],
    ['', 'unknown']
  ] as const) t.equal(callerIn(sipFrom), caller, JSON.stringify(sipFrom))
})

t.test('the name is never that of a Windows device', async t => {
  for (const [sipFrom, caller] of [
    ['sip:con', '_con'], ['sip:NUL.x@example.org', '_NUL.x@example.org'], ['sip:lpt1.example.org', '_lpt1.example.org'], ['%2Eaux', '_aux'],
    ['sip:con@example.org', 'con@example.org'], ['sip:console.example.org', 'console.example.org']
  ] as const) t.equal(callerIn(sipFrom), caller, sipFrom)
})

t.test('a long address is cut, the time and the type are not', async t => {
  const name = downloadName(`sip:${'a'.repeat(1000)}@example.org`, AT, 'audio/opus')
  t.equal(name, `${'a'.repeat(100)} 2025-10-09 12.59.32.opus`)
})

t.test('whatever the caller, the name is safe on every system', async () => {
  const anyUnits = fc.array(fc.nat(0xffff)).map(units => String.fromCharCode(...units))
  const piece = fc.constantFrom('sip:', '@', '/', '\\', '..', '.', ' ', '%2F', '%00', '\0', '\n', '\u202e', '\u2066', '"', ':', 'con', 'aux.', 'COM1', '~', '-', 'é', '😀', '\ud800', 'a')
  fc.assert(fc.property(fc.oneof(fc.array(piece, { maxLength: 60 }).map(pieces => pieces.join('')), anyUnits), sipFrom => {
    const name = downloadName(sipFrom, AT, 'audio/wav')
    return /^[\w@+][\w@.+-]* 2025-10-09 12\.59\.32\.wav$/.test(name) && name.length <= 150 &&
      !/^(con|prn|aux|nul|com\d|lpt\d)[ ]*(\.|$)/i.test(name)
  }), { numRuns: 1000 })
})

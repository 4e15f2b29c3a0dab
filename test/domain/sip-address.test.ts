import fc from 'fast-check'
import t from 'tap'
import { addressKey, MAX_SIP_ADDRESS_CHARS, parseSipAddress } from '../../src/domain/sip-address.js'

const keyOf = (text: string) => {
  const address = parseSipAddress(text)
  return address === undefined ? undefined : addressKey(address)
}

t.test('a SIP address is taken apart as it was written', async t => {
  t.strictSame(parseSipAddress('SIPS:%41lice:s3cret@Sip.Example.ORG:05061;Transport=TCP;lr?Subject=a%20b&to='), {
    scheme: 'sips',
    user: '%41lice',
    host: 'Sip.Example.ORG',
    port: 5061,
    parameters: ';Transport=TCP;lr',
    headers: '?Subject=a%20b&to=',
    uri: 'SIPS:%41lice:s3cret@Sip.Example.ORG:05061;Transport=TCP;lr?Subject=a%20b&to='
  })
  t.strictSame(parseSipAddress('sip:pbx'), {
    scheme: 'sip', user: undefined, host: 'pbx', port: undefined, parameters: '', headers: '', uri: 'sip:pbx'
  })
})

t.test('a bare user@host is taken as sip:user@host', async t => {
  t.match(parseSipAddress('alice@sip.example.org'), { scheme: 'sip', user: 'alice', uri: 'sip:alice@sip.example.org' })
  t.match(parseSipAddress('sips@example.org:5060;lr'), { scheme: 'sip', user: 'sips', port: 5060, uri: 'sip:sips@example.org:5060;lr' })
})

t.test('what the grammar of RFC 3261 allows is a SIP address', async t => {
  for (const text of [
    'sip:alice@atlanta.com',
    'sip:alice:secretword@atlanta.com;transport=tcp',
    'sip:alice:@atlanta.com',
    'sips:alice@atlanta.com?subject=project%20x&priority=urgent',
    'sip:+1-212-555-1212:1234@gateway.com;user=phone',
    'sips:1212@gateway.com',
    'sip:alice@192.0.2.4',
    'sip:atlanta.com;method=REGISTER?to=alice%40atlanta.com',
    'sip:alice;day=tuesday@atlanta.com',
    'sip:+358-555-1234567;postd=pp22;isub=1411@foo.com;user=phone',
    'sip:a&=+$,;?/b@example.org',
    "sip:-_.!~*'()@example.org",
    'sip:%00%c3%A9@example.org',
    'sip:alice@[2001:db8::1]:5060',
    'sip:[::ffff:192.0.2.1];maddr=[::1]',
    'sip:alice@example.org.',
    'sip:alice@a-b.3com.x1',
    'sip:alice@example.org:0',
    'sip:alice@example.org;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6',
    'sip:example.org?a=?/b'
  ]) t.equal(parseSipAddress(text)?.uri, text, text)
})

t.test('anything else is not', async t => {
  for (const text of [
    '', 'alice', 'example.org', 'sip:', 'sips:', '@example.org', 'sip:@example.org', 'sip::secret@example.org', 'sip:alice@', 'alice@',
    'tel:+1-212-555-1212', 'mailto:alice@example.org', 'http://alice@example.org', 'alice:secret@example.org', 'xsip:alice@example.org',
    '<sip:alice@example.org>', '"Alice" <sip:alice@example.org>', 'Alice sip:alice@example.org',
    ' sip:alice@example.org', 'sip:alice@example.org ', 'sip:alice@example.org\n', 'sip:al ice@example.org', 'sip:alice\0@example.org',
    'sip:alice@example.org\r\nX: y', 'sip:\u00e9lise@example.org', 'sip:alice@ex\u00e4mple.org', 'sip:\u202ealice@example.org', '\u017fip:alice@example.org',
    'sip:a@b@example.org', 'sip:a#b@example.org', 'sip:a"b@example.org', 'sip:a\\b@example.org', 'sip:a:b:c@example.org', 'sip:a:b;c@example.org',
    'sip:a%@example.org', 'sip:a%4@example.org', 'sip:a%4g@example.org', 'sip:a%%4141@example.org',
    'sip:a@-example.org', 'sip:a@example-.org', 'sip:a@example..org', 'sip:a@.example.org', 'sip:a@.', 'sip:a@example.org..', 'sip:a@ex_ample.org',
    'sip:a@1.2.3', 'sip:a@1.2.3.4.5', 'sip:a@256.1.1.1', 'sip:a@example.1x', 'sip:a@%65xample.org',
    'sip:a@[::1', 'sip:a@::1', 'sip:a@[]', 'sip:a@[:::]', 'sip:a@[1.2.3.4]', 'sip:a@[fe80::1%25eth0]', 'sip:a@[::1]x', 'sip:a@[12345::]',
    'sip:a@example.org:', 'sip:a@example.org:65536', 'sip:a@example.org:5o6', 'sip:a@example.org:-1', `sip:a@example.org:${'9'.repeat(400)}`,
    'sip:a@example.org;', 'sip:a@example.org;;lr', 'sip:a@example.org;=x', 'sip:a@example.org;a=', 'sip:a@example.org;a=b=c', 'sip:a@example.org;a=%4',
    'sip:a@example.org?', 'sip:a@example.org?a', 'sip:a@example.org?=b', 'sip:a@example.org?a=b&', 'sip:a@example.org?a=b=c', 'sip:a@example.org?a=b;lr'
  ]) t.equal(parseSipAddress(text), undefined, JSON.stringify(text))
})

t.test('an address longer than the limit, its scheme counted, is refused', async t => {
  const user = 'a'.repeat(MAX_SIP_ADDRESS_CHARS - 'sip:@example.org'.length)
  t.equal(parseSipAddress(`${user}@example.org`)?.uri.length, MAX_SIP_ADDRESS_CHARS)
  t.ok(parseSipAddress(`sip:${user}@example.org`))
  t.equal(parseSipAddress(`${user}a@example.org`), undefined)
  t.equal(parseSipAddress(`sip:${user}a@example.org`), undefined)
})

t.test('two addresses of one account have the same key', async t => {
  const key = 'alice@example.org'
  for (const text of [
    'alice@example.org', 'SIP:alice@EXAMPLE.org', 'sips:alice:secret@example.org', 'sip:%61lic%65@example.org', 'sip:alice@example.org.',
    'sip:alice@example.org;transport=tcp?subject=x'
  ]) t.equal(keyOf(text), key, text)
  t.equal(keyOf('sip:alice@[2001:DB8:0:0::1]:05060'), 'alice@[2001:db8::1]:5060')
  t.equal(keyOf('sip:a%3b%c3%a9%23@example.org'), 'a%3B%C3%A9%23@example.org', 'the digits of an escape have no case')
  t.equal(keyOf('sip:PBX.example.org'), 'pbx.example.org')
})

t.test('addresses of different accounts have different keys', async t => {
  const texts = [
    'sip:alice@example.org', 'sip:Alice@example.org', 'sip:alice@example.com', 'sip:alice@example.org:5060', 'sip:example.org',
    'sip:a;b@example.org', 'sip:a%3Bb@example.org', 'sip:alice%40example.org@example.org', 'sip:%2561lice@example.org'
  ]
  t.equal(new Set(texts.map(keyOf)).size, texts.length)
})

const chars = (alphabet: string, minLength = 1) => fc.string({ unit: fc.constantFrom(...alphabet, '%41', '%c3', '%25'), minLength, maxLength: 12 })
const unreserved = "abzAZ059-_.!~*'()"
const host = fc.oneof(
  fc.domain(), fc.ipV4(), fc.ipV6().map(address => `[${address}]`), fc.constantFrom('localhost', 'EXAMPLE.org.', '[::]')
)
const valid = fc.record({
  scheme: fc.constantFrom('', 'sip:', 'sips:', 'SIP:', 'SiPs:'),
  user: chars(`${unreserved}&=+$,;?/`),
  password: fc.option(chars(`${unreserved}&=+$,`, 0), { nil: undefined }),
  host,
  port: fc.option(fc.nat(65_535), { nil: undefined }),
  parameters: fc.array(fc.tuple(chars(`${unreserved}[]/:&+$`), fc.option(chars(`${unreserved}[]/:&+$`))), { maxLength: 3 }),
  headers: fc.array(fc.tuple(chars(`${unreserved}[]/?:+$`), chars(`${unreserved}[]/?:+$`, 0)), { maxLength: 3 })
}).map(parts => {
  const userinfo = parts.password === undefined || parts.scheme === '' ? parts.user : `${parts.user}:${parts.password}`
  const parameters = parts.parameters.map(([name, value]) => value === null ? `;${name}` : `;${name}=${value}`).join('')
  const headers = parts.headers.map(([name, value], index) => `${index === 0 ? '?' : '&'}${name}=${value}`).join('')
  const port = parts.port === undefined ? '' : `:${parts.port}`
  return { ...parts, parameters, headers, text: `${parts.scheme}${userinfo}@${parts.host}${port}${parameters}${headers}` }
})

t.test('whatever the grammar makes is understood, and understood again from what is stored', async () => {
  fc.assert(fc.property(valid, ({ text, user, host, port, parameters, headers }) => {
    const address = parseSipAddress(text)
    if (address === undefined) return false
    const again = parseSipAddress(address.uri)
    return address.user === user && address.host === host && address.port === port &&
      address.parameters === parameters && address.headers === headers &&
      again !== undefined && again.uri === address.uri && addressKey(again) === addressKey(address)
  }), { numRuns: 1000 })
})

t.test('the key is an address with that key, and escaping what needs no escape does not change it', async () => {
  fc.assert(fc.property(valid, ({ text, user, host, port }) => {
    const key = keyOf(text)
    const escaped = user.replaceAll(/%..|[A-Za-z0-9]/g, part => part.length > 1 ? part.toLowerCase() : `%${part.charCodeAt(0).toString(16)}`)
    return key !== undefined && keyOf(key) === key &&
      keyOf(`sips:${escaped}@${host.toUpperCase()}${port === undefined ? '' : `:${port}`}`) === key
  }), { numRuns: 1000 })
})

t.test('hostile strings are answered, never thrown at, up to 10,000 characters', async () => {
  const anyUnits = fc.array(fc.nat(0xffff)).map(units => String.fromCharCode(...units))
  const piece = fc.constantFrom(
    'sip:', 'sips:', 'a', '1', '@', ':', ';', '=', '?', '&', '%', '%4', '%41', '[', ']', '::', '.', '-', '+', ' ', '\0', '\r\n', '<', '"', 'é', '\ud800'
  )
  // Lengths on both sides of the limit: above it a string costs nothing, just below it the most.
  const hostile = fc.tuple(fc.constantFrom('', 'sip:', 'sip:a@'), fc.array(piece, { minLength: 1, maxLength: 6 }), fc.constantFrom(100, MAX_SIP_ADDRESS_CHARS - 10, 10_000), piece)
    .map(([start, pieces, length, end]) => (start + pieces.join('').repeat(length)).slice(0, length) + end)
  fc.assert(fc.property(fc.oneof(hostile, anyUnits), text => {
    const address = parseSipAddress(text)
    return address === undefined || (/^[!-~]+$/.test(address.uri) && address.uri.endsWith(text))
  }), { numRuns: 2000 })
})

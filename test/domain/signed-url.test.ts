import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { createSignedUrls, type Direction, type SignedUrls } from '../../src/domain/signed-url.js'
import { AppError } from '../../src/errors.js'

const KEY = 'a key of at least thirty-two characters'
const OLDER_KEY = 'another key of at least 32 characters'
const VOICEMAIL = '019a0c3f-4b1e-7c00-8a6b-3f0f5b1c2d3e'
const EXPIRES_AT_MS = 1_760_000_000_000

function at (nowMs: number, { key = KEY, previousKeys = [] as string[] } = {}): SignedUrls {
  return createSignedUrls({ key, previousKeys, clock: () => nowMs })
}

const early = at(EXPIRES_AT_MS - 1)
const sign = (direction: Direction, urls = early): string => urls.sign({ direction, voicemailId: VOICEMAIL, expiresAtMs: EXPIRES_AT_MS })
/** What the router hands on: the last segment of the path. */
const tokenOf = (path: string): string => path.slice(path.lastIndexOf('/') + 1)
const invalid = { code: 'invalid_signature' }

t.test('a signed URL is a path, in characters that no client has a reason to escape, and opens what it was signed for', async t => {
  for (const direction of ['upload', 'download'] as const) {
    const path = sign(direction)
    t.match(path, /^\/(uploads|downloads)\/[A-Za-z0-9._~;=:@-]+$/)
    t.equal(encodeURI(path), path)
    t.equal(new URL(path, 'http://example.org').pathname, path)
    t.strictSame(early.verify(direction, tokenOf(path)), { direction, voicemailId: VOICEMAIL, expiresAtMs: EXPIRES_AT_MS })
  }
})

t.test('every voicemail, direction and moment has a URL of its own, and the same always the same', async t => {
  const paths = Array.from({ length: 100 }, () => randomUUID()).flatMap(voicemailId => (['upload', 'download'] as const).flatMap(direction =>
    [0, 1000].map(laterMs => early.sign({ direction, voicemailId, expiresAtMs: EXPIRES_AT_MS + laterMs }))))
  t.equal(new Set(paths).size, 400)
  t.equal(new Set(paths.map(path => path.slice(-43))).size, 400, 'in the signature alone too')
  t.equal(sign('upload'), sign('upload', at(0)))
})

t.test('a signature of one direction, slot, moment or deployment opens no other', async t => {
  const token = tokenOf(sign('upload'))
  t.throws(() => early.verify('download', token), invalid)
  t.throws(() => early.verify('upload', tokenOf(sign('download'))), invalid)
  t.throws(() => early.verify('upload', token.replace(VOICEMAIL, '019a0c3f-4b1e-7c00-8a6b-3f0f5b1c2d3f')), invalid)
  t.throws(() => early.verify('upload', token.replace('1760000000', '1760000001')), invalid)
  t.throws(() => at(0, { key: OLDER_KEY }).verify('upload', token), invalid)
  t.throws(() => at(0, { key: `${KEY} ` }).verify('upload', token), invalid)
})

t.test('an older key verifies while it is rotated out, and does not sign', async t => {
  const old = tokenOf(sign('upload', at(0, { key: OLDER_KEY })))
  const rotated = at(0, { previousKeys: ['one in between, of 32 characters or so', OLDER_KEY] })
  t.equal(rotated.verify('upload', old).voicemailId, VOICEMAIL)
  t.equal(sign('upload', rotated), sign('upload'), 'the new key signs')
  t.equal(rotated.verify('upload', tokenOf(sign('upload'))).voicemailId, VOICEMAIL)
  t.throws(() => rotated.verify('download', old), invalid)
  t.throws(() => at(0).verify('upload', old), invalid, 'and once it is out it opens nothing')
})

t.test('a URL ends with the beginning of its second, and is told so only where it was signed here', async t => {
  const token = tokenOf(sign('upload'))
  t.equal(at(EXPIRES_AT_MS - 1).verify('upload', token).expiresAtMs, EXPIRES_AT_MS)
  for (const nowMs of [EXPIRES_AT_MS, EXPIRES_AT_MS + 1, EXPIRES_AT_MS * 2]) {
    t.throws(() => at(nowMs).verify('upload', token), { code: 'url_expired' })
    t.throws(() => at(nowMs).verify('download', token), invalid)
  }
  t.throws(() => at(EXPIRES_AT_MS + 500).verify('upload', token), { code: 'url_expired', facts: { expected: 'before 2025-10-09T08:53:20Z', found: '2025-10-09T08:53:20Z' } })
  const parts = early.sign({ direction: 'upload', voicemailId: VOICEMAIL, expiresAtMs: EXPIRES_AT_MS + 999 })
  t.equal(parts, sign('upload'), 'parts of a second are cut off')
})

/** Whether a token is refused as not signed here; any other error is thrown on. */
function isRefused (token: string): boolean {
  try {
    early.verify('download', token)
    return false
  } catch (error) {
    if (error instanceof AppError && error.code === 'invalid_signature') return true
    throw error
  }
}

t.test('any change of any character is refused', async t => {
  const token = tokenOf(sign('download'))
  const others = [...'0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.~;=:@%/?+ \n\0é']
  const changes = new Set([token.toUpperCase(), encodeURIComponent(token), token.replace('expires=', 'expires=00'), token + token])
  for (let index = 0; index <= token.length; index++) {
    const [before, after] = [token.slice(0, index), token.slice(index)]
    for (const other of others) changes.add(before + other + after.slice(1)).add(before + other + after)
    changes.add(before + after.slice(1)).add(before).add(after)
  }
  changes.delete(token)
  t.ok(changes.size > 10_000)
  t.strictSame([...changes].filter(changed => !isRefused(changed)), [])
  t.notOk(isRefused(token))
})

t.test('whatever stands in its place is refused as not signed here, and nothing else is thrown', async t => {
  const strange = ['', ';', 'a'.repeat(10_000), `${VOICEMAIL};expires=;signature=`, `;expires=1760000000;signature=${'A'.repeat(43)}`]
  t.strictSame(strange.filter(token => !isRefused(token)), [])
  t.doesNotThrow(() => { fc.assert(fc.property(fc.string({ maxLength: 200, unit: 'binary' }), isRefused), { numRuns: 200 }) })
  t.doesNotThrow(() => {
    fc.assert(fc.property(fc.uuid(), fc.nat(), fc.uint8Array({ minLength: 32, maxLength: 32 }), (uuid, expires, signature) =>
      isRefused(`${uuid};expires=${expires};signature=${Buffer.from(signature).toString('base64url')}`)), { numRuns: 500 })
  })
})

import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import t from 'tap'
import { startService, type Answer, type Service, type Testing } from '../helper.js'
import { signJwt, type SigningKey } from '../json-web-token.js'
import { until } from '../wire/connection.js'

const SECRET = 'a shared secret of more than 32 characters'
const OTHER_SECRET = 'another secret of more than 32 characters'
const PATIENT = { AUTH_FAILURES_PER_MINUTE: '100000' }
const seconds = (offset: number): number => Math.floor(Date.now() / 1000) + offset

interface Asking { service: Service, id: number, key: string, ask: (headers: Record<string, string>, path?: string) => Promise<Answer>, bear: (token: string, path?: string) => Promise<Answer> }

/** A service with one account, `sip:bob@sip.example.org`, which `me` stands for. */
async function start (t: Testing, settings: Record<string, string>, clock?: () => number): Promise<Asking> {
  const service = await startService(t, { settings: { ...PATIENT, ...settings }, ...clock !== undefined && { clock, looksInside: true } })
  const user = await service.addUser('sip:bob@sip.example.org')
  const ask: Asking['ask'] = async (headers, path = '/accounts/me') => await service.call('GET', path, undefined, headers)
  return { service, ...user, ask, bear: async (token, path) => await ask({ authorization: `Bearer ${token}` }, path) }
}

const UNAUTHORIZED = { status: 401, body: { code: 'unauthorized', status: 401, title: 'Unauthorized', detail: /./ } }

t.test('no credentials, or bad ones, are 401 with WWW-Authenticate', async t => {
  const { key, ask } = await start(t, { JWT_SECRET: SECRET })
  t.equal((await ask({ 'x-api-key': key })).status, 200)
  const token = signJwt({ sip_identity: 'sip:bob@sip.example.org' }, SECRET)
  for (const headers of [
    {}, { 'x-api-key': '' }, { 'x-api-key': 'x' }, { 'x-api-key': `${key}x` }, { 'x-api-key': key.slice(0, -1) }, { 'x-api-key': key.toUpperCase() }, { 'x-api-key': `${key}, ${key}` },
    { 'x-api-key': createHash('sha256').update(key).digest('hex') }, { authorization: key }, { authorization: `Bearer ${key}` }, { authorization: 'Bearer' }, { authorization: 'Bearer ' },
    { authorization: token }, { authorization: `Basic ${Buffer.from(`bob:${key}`).toString('base64')}` }, { authorization: `Bearer ${token} ${token}` }, { authorization: 'Bearer a.b.c' },
    { cookie: `token=${token}; x-api-key=${key}` }
  ]) {
    for (const path of ['/accounts/me', '/accounts', '/accounts/999/voicemails/x']) {
      const answer = await ask(headers, path)
      t.match(answer, UNAUTHORIZED, `${path} ${JSON.stringify(headers).slice(0, 60)}`)
      t.match(answer.headers.get('www-authenticate'), /^Bearer realm="voicemaild"/)
    }
  }
  t.equal((await ask({}, `/accounts/me?x-api-key=${key}`)).status, 401, 'a key in the query is none')
})

t.test('a key that is expired, taken back or of an account that is gone opens nothing from that moment on', async t => {
  let nowMs = Date.UTC(2025, 9, 9, 12)
  const { service: { call }, id, ask } = await start(t, {}, () => nowMs)
  const make = async (facts: object): Promise<{ id: number, key: string }> => (await call('POST', `/accounts/${id}/api_keys`, { name: 'x', ...facts })).body
  const expiring = await make({ expires_at: '2025-10-09T12:00:10Z' })
  const born = await make({ expires_at: '2025-10-09T11:59:59Z' })
  const taken = await make({})
  const kept = await make({})
  const admin = await make({ role: 'admin' })
  const statuses = async (): Promise<number[]> => await Promise.all([expiring, born, taken, kept, admin].map(async ({ key }) => (await ask({ 'x-api-key': key })).status))
  t.strictSame(await statuses(), [200, 401, 200, 200, 200])
  nowMs += 9999
  t.strictSame(await statuses(), [200, 401, 200, 200, 200])
  nowMs += 1
  t.strictSame(await statuses(), [401, 401, 200, 200, 200])
  await call('DELETE', `/accounts/${id}/api_keys/${taken.id}`)
  t.strictSame(await statuses(), [401, 401, 401, 200, 200])
  await call('DELETE', `/accounts/${id}`)
  t.strictSame(await statuses(), [401, 401, 401, 401, 401])
})

t.test('keys are stored as SHA-256 only, with their last use to the minute', async t => {
  let nowMs = Date.UTC(2025, 9, 9, 12)
  const { service, id, key, ask } = await start(t, {}, () => nowMs)
  const lastUse = async (): Promise<string | null> => (await service.call('GET', `/accounts/${id}/api_keys`)).body[0].last_used_at
  t.equal(await lastUse(), null)
  await ask({ 'x-api-key': key })
  await until(async () => await lastUse() === '2025-10-09T12:00:00Z')
  nowMs += 59_999
  await ask({ 'x-api-key': key })
  nowMs += 1
  await ask({ 'x-api-key': key })
  await until(async () => await lastUse() === '2025-10-09T12:01:00Z')
  await ask({ 'x-api-key': `${key}x` })

  const sha256 = createHash('sha256').update(key).digest('hex')
  const database = new Sqlite(join(service.dataFolder, 'voicemaild.sqlite'), { readonly: true })
  t.match(database.prepare('select * from api_keys').all(), [{ sha256, account_id: id, name: 'test', role: 'user' }])
  database.close()
  await service.close()
  const bytes = await readFile(join(service.dataFolder, 'voicemaild.sqlite'))
  t.ok(bytes.includes(sha256))
  for (const secret of [key, key.slice(3), service.adminKey, service.adminKey.slice(3)]) t.notOk(bytes.includes(secret), 'no key is in the database')
})

t.test('a token names its account by sip_identity, else by sub', async t => {
  const { id, ask, bear } = await start(t, { JWT_SECRET: SECRET })
  for (const claims of [
    { sip_identity: 'sip:bob@sip.example.org' }, { sip_identity: 'bob@SIP.example.org' }, { sip_identity: 'sips:bob@sip.example.org;transport=tls' },
    { sub: String(id) }, { sub: id }, { sip_identity: 'sip:bob@sip.example.org', sub: '999' }
  ]) {
    t.match(await bear(signJwt(claims, SECRET)), { status: 200, body: { id } }, JSON.stringify(claims))
    t.match(await bear(signJwt(claims, SECRET), '/accounts'), { status: 403, body: { code: 'forbidden' } }, 'which makes no admin')
  }
  for (const scheme of ['bearer', 'BEARER', 'Bearer  ']) {
    t.equal((await ask({ authorization: `${scheme} ${signJwt({ sub: id }, SECRET)}` })).status, 200, scheme)
  }
})

t.test('a valid token of nobody known is 403', async t => {
  const { service: { call, addUser }, id, bear } = await start(t, { JWT_SECRET: SECRET })
  const removed = await addUser('sip:removed@sip.example.org')
  await call('DELETE', `/accounts/${removed.id}`)
  for (const claims of [
    {}, { sip_identity: 'sip:eve@sip.example.org' }, { sip_identity: 'sip:eve@sip.example.org', sub: String(id) }, { sip_identity: '', sub: String(id) }, { sip_identity: 'x'.repeat(5000) },
    { sub: '999' }, { sub: 'bob' }, { sub: `0${id}` }, { sub: `${id}.0` }, { sub: ` ${id}` }, { sub: null }, { sub: [String(id), '2'] }, { sub: '9'.repeat(20) },
    { sub: String(removed.id) }, { sip_identity: 'sip:removed@sip.example.org' }, { sip: 'sip:bob@sip.example.org' }
  ]) {
    for (const path of ['/accounts/me', `/accounts/${id}/voicemails`, '/accounts']) {
      t.match(await bear(signJwt(claims, SECRET), path), { status: 403, body: { code: 'forbidden' } }, `${path} ${JSON.stringify(claims).slice(0, 60)}`)
    }
  }
})

t.test('the claims can have other names, and the admin claim makes an admin', async t => {
  const { id, bear } = await start(t, { JWT_SECRET: SECRET, JWT_SIP_CLAIM: 'https://sip.example.org/uri', JWT_ADMIN_CLAIM: 'roles' })
  t.match(await bear(signJwt({ 'https://sip.example.org/uri': 'sip:bob@sip.example.org' }, SECRET)), { status: 200, body: { id } })
  t.equal((await bear(signJwt({ sip_identity: 'sip:bob@sip.example.org' }, SECRET))).status, 403)
  for (const [roles, status] of [
    [true, 200], ['admin', 200], [['user', 'admin'], 200],
    [false, 403], ['', 403], ['Admin', 403], ['administrator', 403], ['user', 403], [['user'], 403], [[['admin']], 403], [1, 403], ['true', 403], [{ admin: true }, 403], [null, 403]
  ] as const) {
    for (const claims of [{ roles }, { roles, sub: id }, { roles, sub: '999' }]) {
      t.equal((await bear(signJwt(claims, SECRET), '/accounts')).status, status, JSON.stringify(claims))
    }
  }
  t.match(await bear(signJwt({ roles: 'admin', sub: id }, SECRET)), { status: 200, body: { id } }, 'an admin with an account is me')
  t.match(await bear(signJwt({ roles: 'admin' }, SECRET)), { status: 403 }, 'an admin without one is not')
  t.equal((await bear(signJwt({ roles: 'admin' }, SECRET), '/accounts/999')).status, 404)
  t.equal((await bear(signJwt({ voicemail_role: 'admin', sub: id }, SECRET), '/accounts')).status, 403, 'the default name is not believed beside it')
})

t.test('voicemail_role is the admin claim unless it has another name', async t => {
  const { bear } = await start(t, { JWT_SECRET: SECRET })
  t.equal((await bear(signJwt({ voicemail_role: 'admin' }, SECRET), '/accounts')).status, 200)
  t.equal((await bear(signJwt({ roles: 'admin' }, SECRET), '/accounts')).status, 403)
})

t.test('exp is required and kept, and so is nbf', async t => {
  const { bear } = await start(t, { JWT_SECRET: SECRET })
  const sub = '1'
  for (const claims of [{ exp: seconds(600) }, { exp: seconds(600), nbf: seconds(-600), iat: seconds(-600) }, { iss: 'anybody', aud: 'anything', exp: seconds(600) }]) {
    t.equal((await bear(signJwt({ sub, ...claims }, SECRET))).status, 200, JSON.stringify(claims))
  }
  for (const claims of [
    { exp: undefined }, { exp: null }, { exp: seconds(-1) }, { exp: 0 }, { exp: -1 }, { exp: '2999-01-01T00:00:00Z' }, { exp: String(seconds(600)) }, { exp: {} },
    { nbf: seconds(600) }, { nbf: 'now' }
  ]) {
    const answer = await bear(signJwt({ sub, ...claims }, SECRET))
    t.match(answer, UNAUTHORIZED, JSON.stringify(claims))
    t.match(answer.headers.get('www-authenticate'), 'Bearer realm="voicemaild", error="invalid_token"')
  }
})

t.test('a token that was believed a moment ago is not any more when it has expired, or its account is gone', async t => {
  let laterMs = 0
  const { now } = Date
  const clock = (): number => now() + laterMs
  // fast-jwt has a clock of its own.
  Date.now = clock
  t.teardown(() => { Date.now = now })
  const { service, id, bear } = await start(t, { JWT_SECRET: SECRET }, clock)
  const short = signJwt({ sub: String(id), exp: seconds(30) }, SECRET)
  const long = signJwt({ sub: String(id), exp: seconds(3000) }, SECRET)
  for (const token of [short, short, long, long]) t.equal((await bear(token)).status, 200)
  laterMs = 31_000
  t.match(await bear(short), UNAUTHORIZED)
  t.equal((await bear(long)).status, 200)
  laterMs = 0
  await service.call('DELETE', `/accounts/${id}`)
  t.equal((await bear(long)).status, 403)
})

t.test('iss and aud are checked where they are configured', async t => {
  const { bear } = await start(t, { JWT_SECRET: SECRET, JWT_ISSUER: 'https://id.example.org', JWT_AUDIENCE: 'voicemail' })
  const right = { sub: '1', iss: 'https://id.example.org', aud: 'voicemail' }
  t.equal((await bear(signJwt(right, SECRET))).status, 200)
  t.equal((await bear(signJwt({ ...right, aud: ['mail', 'voicemail'] }, SECRET))).status, 200)
  for (const wrong of [
    { iss: undefined }, { iss: 'https://id.example.org/' }, { iss: 'https://id.example.org.evil.example' }, { iss: null }, { iss: '' }, { iss: 7 },
    { aud: undefined }, { aud: 'mail' }, { aud: 'voicemails' }, { aud: [] }, { aud: ['mail'] }, { aud: null }, { aud: 7 }
  ]) {
    t.match(await bear(signJwt({ ...right, ...wrong }, SECRET)), UNAUTHORIZED, JSON.stringify(wrong))
  }
})

const pem = (key: KeyObject): string => key.export({ type: 'spki', format: 'pem' }).toString()
const rsa = () => generateKeyPairSync('rsa', { modulusLength: 2048 })
const p256 = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const ed25519 = () => generateKeyPairSync('ed25519')
const rsaKey = rsa().privateKey
const ecKey = p256().privateKey
const edKey = ed25519().privateKey

for (const [algorithm, pair, sameKeyOther] of [['RS256', rsa(), ['RS384', 'RS512']], ['ES256', p256(), ['ES384', 'ES512']], ['EdDSA', ed25519(), ['Ed25519']]] as const) {
  t.test(`with a public key for ${algorithm}, no token of another algorithm or another key is believed`, async t => {
    const folder = t.testdir()
    const file = join(folder, 'public.pem')
    const publicPem = pem(pair.publicKey)
    await writeFile(file, publicPem)
    const { id, key, ask, bear } = await start(t, { DATA_DIR: join(folder, 'data'), JWT_PUBLIC_KEY_FILE: file })
    const token = (key: SigningKey, header: { alg: string, [name: string]: unknown }, claims = {}): string => signJwt({ sub: '1', ...claims }, key, header)
    const right = token(pair.privateKey, { alg: algorithm })
    t.match(await bear(right), { status: 200, body: { id } })
    t.equal((await bear(token(pair.privateKey, { alg: algorithm, kid: 'x', typ: 'at+jwt' }))).status, 200)

    const [head = '', body = '', signature = ''] = right.split('.')
    const forged = Buffer.from(JSON.stringify({ sub: '1', voicemail_role: 'admin', exp: seconds(600) })).toString('base64url')
    for (const [title, wrong] of [
      ['none', token('', { alg: 'none' })],
      ['None', token('', { alg: 'none' }).replace(/^[^.]*/, Buffer.from('{"alg":"None","typ":"JWT"}').toString('base64url'))],
      ['none, with the right signature', `${Buffer.from('{"alg":"none"}').toString('base64url')}.${body}.${signature}`],
      ['HS256 with the public key as its secret', token(publicPem, { alg: 'HS256' })],
      ['HS256 with the public key without its last line break', token(publicPem.trim(), { alg: 'HS256' })],
      ['HS512 with the public key as its secret', token(publicPem, { alg: 'HS512' })],
      ['HS256 with a secret of nothing', token('', { alg: 'HS256' })],
      ['HS256 with some secret', token(SECRET, { alg: 'HS256' })],
      ['RS256 of another key', token(rsaKey, { alg: 'RS256' })],
      ['ES256 of another key', token(ecKey, { alg: 'ES256' })],
      ['EdDSA of another key', token(edKey, { alg: 'EdDSA' })],
      ['a key that the token brings along', token(rsaKey, { alg: 'RS256', jwk: rsaKey.export({ format: 'jwk' }) })],
      ...sameKeyOther.map(alg => [alg, algorithm === 'EdDSA'
        ? `${Buffer.from(JSON.stringify({ alg })).toString('base64url')}.${body}.${signature}`
        : token(pair.privateKey, { alg })] as const),
      ['critical extensions that nobody here knows', token(pair.privateKey, { alg: algorithm, crit: ['b64'], b64: false })],
      ['other claims', `${head}.${forged}.${signature}`],
      ['no signature', `${head}.${body}.`],
      ['two parts', `${head}.${body}`],
      ['a signature cut short', right.slice(0, -2)],
      ['a signature with more to it', `${right}AA`],
      ['expired', token(pair.privateKey, { alg: algorithm }, { exp: seconds(-1) })],
      ['without an end', token(pair.privateKey, { alg: algorithm }, { exp: undefined })]
    ] as const) {
      t.match(await bear(wrong), UNAUTHORIZED, title)
      t.match(await ask({ authorization: `Bearer ${wrong}`, 'x-api-key': key }), UNAUTHORIZED, `${title}, beside a good key`)
    }
  })
}

t.test('with a shared secret, only HS256 and only this secret is believed', async t => {
  const { bear } = await start(t, { JWT_SECRET: SECRET })
  for (const [title, token] of [
    ['none', signJwt({ sub: '1' }, '', { alg: 'none' })],
    ['HS384', signJwt({ sub: '1' }, SECRET, { alg: 'HS384' })],
    ['HS512', signJwt({ sub: '1' }, SECRET, { alg: 'HS512' })],
    ['another secret', signJwt({ sub: '1' }, OTHER_SECRET)],
    ['a secret of nothing', signJwt({ sub: '1' }, '')],
    ['RS256', signJwt({ sub: '1' }, rsaKey, { alg: 'RS256' })],
    ['EdDSA', signJwt({ sub: '1' }, edKey, { alg: 'EdDSA' })]
  ] as const) {
    t.match(await bear(token), UNAUTHORIZED, title)
  }
})

t.test('where both are given, the token decides', async t => {
  const { service: { adminKey, addUser }, id, key, ask } = await start(t, { JWT_SECRET: SECRET })
  const other = await addUser('sip:carol@sip.example.org')
  const carol = `Bearer ${signJwt({ sip_identity: 'sip:carol@sip.example.org' }, SECRET)}`
  t.equal((await ask({ authorization: carol, 'x-api-key': key })).body.id, other.id)
  t.equal((await ask({ authorization: carol, 'x-api-key': key }, `/accounts/${id}`)).status, 403)
  t.equal((await ask({ authorization: carol, 'x-api-key': adminKey }, '/accounts')).status, 403)
  t.equal((await ask({ authorization: carol, 'x-api-key': 'x' })).status, 200)
  for (const [authorization, status] of [
    [`Bearer ${signJwt({ sub: '1' }, OTHER_SECRET)}`, 401], ['Bearer x', 401], [`Bearer ${signJwt({ sub: '999' }, SECRET)}`, 403], [`Bearer ${signJwt({ sub: '1', exp: 1 }, SECRET)}`, 401], ['Bearer two words', 401]
  ] as const) {
    t.equal((await ask({ authorization, 'x-api-key': key })).status, status, authorization)
  }
  t.equal((await ask({ authorization: 'Basic eDp5', 'x-api-key': key })).status, 200, 'what is no bearer token is none')
})

t.test('where no token is configured, none is believed', async t => {
  const { key, ask, bear } = await start(t, {})
  for (const token of [signJwt({ sub: '1' }, ''), signJwt({ sub: '1' }, '', { alg: 'none' }), signJwt({ voicemail_role: 'admin' }, 'undefined')]) {
    t.match(await bear(token), UNAUTHORIZED)
    t.match(await ask({ authorization: `Bearer ${token}`, 'x-api-key': key }), UNAUTHORIZED)
  }
})

t.test('too many failures of one address are 429 with Retry-After, while good credentials and other addresses pass', async t => {
  const { key, ask } = await start(t, { JWT_SECRET: SECRET, AUTH_FAILURES_PER_MINUTE: '4', TRUST_PROXY: '127.0.0.1' })
  const token = signJwt({ sub: '1' }, SECRET)
  const from = (address: string, headers: Record<string, string>): Promise<Answer> => ask({ 'x-forwarded-for': address, ...headers })
  const wrong = [{ 'x-api-key': 'x' }, { authorization: `Bearer ${token}x` }]
  for (let n = 0; n < 10; n++) t.equal((await from('192.0.2.1', {})).status, 401, 'nothing tried is nothing failed')
  for (const headers of [...wrong, ...wrong]) t.match(await from('192.0.2.1', headers), UNAUTHORIZED)
  for (const headers of [...wrong, ...wrong]) {
    const answer = await from('192.0.2.1', headers)
    t.match(answer, { status: 429, body: { code: 'too_many_failures', status: 429, title: 'Too Many Requests' } })
    t.match(answer.headers.get('retry-after'), /^([1-9]|[1-5][0-9]|60)$/, 'in whole seconds')
  }
  t.equal((await from('192.0.2.1', { 'x-api-key': key })).status, 200)
  t.equal((await from('192.0.2.1', { authorization: `Bearer ${token}` })).status, 200)
  t.equal((await from('192.0.2.1', {})).status, 401)
  t.equal((await from('192.0.2.2', { 'x-api-key': 'x' })).status, 401)
  t.equal((await from('198.51.100.9, 192.0.2.1', { 'x-api-key': 'x' })).status, 429, 'the proxy\'s word counts, not that of the client before it')
})

t.test('without a trusted proxy an address cannot be made up', async t => {
  const { ask } = await start(t, { AUTH_FAILURES_PER_MINUTE: '2' })
  const statuses: number[] = []
  for (let n = 0; n < 4; n++) statuses.push((await ask({ 'x-forwarded-for': `192.0.2.${n}`, 'x-api-key': 'x' })).status)
  t.strictSame(statuses, [401, 401, 429, 429])
})

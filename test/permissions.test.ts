import { readFile } from 'node:fs/promises'
import t from 'tap'
import { startService } from './helper.js'
import { signJwt } from './json-web-token.js'

const SECRET = 'a shared secret of more than 32 characters'
const NOW_MS = Date.UTC(2025, 9, 9, 12)
const service = await startService(t, { settings: { JWT_SECRET: SECRET, AUTH_FAILURES_PER_MINUTE: '100000' }, clock: () => NOW_MS })
const { call, adminKey } = service

/** Every JSON operation, with a body that fits, and its status where it may be done. `{id}` is the account that is asked for. */
const OPERATIONS = [
  { operation: 'POST /accounts', body: () => ({ sip_uri: `sip:new${++made}@sip.example.org` }), done: 201 },
  { operation: 'GET /accounts', done: 200 },
  { operation: 'GET /accounts/{address}/search', done: 200 },
  { operation: 'GET /accounts/{id}', done: 200, own: true },
  { operation: 'DELETE /accounts/{id}', done: 200 },
  { operation: 'POST /accounts/{id}/voicemails', body: () => ({ sip_from: 'sip:alice@sip.example.org', content_type: 'audio/opus' }), done: 201, own: true },
  { operation: 'GET /accounts/{id}/voicemails', done: 200, own: true },
  { operation: 'GET /accounts/{id}/voicemails/{uuid}', done: 200, own: true },
  // It is open still: the caller may, the voicemail cannot.
  { operation: 'PATCH /accounts/{id}/voicemails/{uuid}', body: () => ({ read: true }), done: 409, own: true },
  { operation: 'DELETE /accounts/{id}/voicemails/{uuid}', done: 200, own: true },
  { operation: 'GET /accounts/{id}/voicemails/{uuid}/events', done: 200, own: true },
  { operation: 'GET /accounts/{id}/quota', done: 200 },
  { operation: 'PATCH /accounts/{id}/quota', body: () => ({ quota_messages: 0 }), done: 200 },
  { operation: 'POST /accounts/{id}/api_keys', body: () => ({ name: 'new' }), done: 201 },
  { operation: 'GET /accounts/{id}/api_keys', done: 200 },
  { operation: 'DELETE /accounts/{id}/api_keys/{key_id}', done: 200 }
]
let made = 0

/** An account with a slot, and whoever may ask for it. */
async function makeAccount () {
  const user = await service.addUser()
  const { id: uuid } = await service.openSlot(user.id)
  const key = async (facts: object): Promise<{ id: number, key: string }> => (await call('POST', `/accounts/${user.id}/api_keys`, { name: 'x', ...facts })).body
  const { body: { username, domain } } = await call('GET', `/accounts/${user.id}`)
  return { ...user, uuid, address: `${username}@${domain}`, keyId: (await key({})).id, adminKey: (await key({ role: 'admin' })).key, expiredKey: (await key({ expires_at: '2025-10-09T11:59:59Z' })).key }
}
type TestAccount = Awaited<ReturnType<typeof makeAccount>>

/** Where another account's paths are asked for, `uuid`, `keyId` and `address` are that other's, so that only the caller stands in the way. */
interface Asked { id: string, of: TestAccount }
interface Kind {
  kind: string
  headers: (own: TestAccount) => Record<string, string>
  asks: (own: TestAccount, other: TestAccount) => Asked
  /** What an operation below `/accounts/{id}` is answered with, where it is not done. */
  refused: (own: boolean) => number | undefined
  /** The same for an operation that is below no account. */
  refusedOutside: number | undefined
}

const withKey = (key: (own: TestAccount) => string) => (own: TestAccount) => ({ 'x-api-key': key(own) })
const withToken = (claims: (own: TestAccount) => Record<string, unknown>, secret = SECRET) => (own: TestAccount) => ({ authorization: `Bearer ${signJwt(claims(own), secret)}` })
const bySip = ({ address }: TestAccount): Record<string, unknown> => ({ sip_identity: `sip:${address}` })
const me = (own: TestAccount): Asked => ({ id: 'me', of: own })
const ownId = (own: TestAccount): Asked => ({ id: String(own.id), of: own })
const otherId = (_own: TestAccount, other: TestAccount): Asked => ({ id: String(other.id), of: other })
const unknownId = (own: TestAccount): Asked => ({ id: '999999', of: own })
const noId = (own: TestAccount): Asked => ({ id: `${own.id}.0`, of: own })
const always = (status: number) => ({ refused: () => status, refusedOutside: status })
const ifOwn = { refused: (own: boolean) => own ? undefined : 403, refusedOutside: 403 }
const never = { refused: () => undefined, refusedOutside: undefined }
const unlessOutside = (status: number) => ({ refused: () => status, refusedOutside: undefined })

const user = withKey(({ key }) => key)
const admin = withKey(() => adminKey)
const KINDS: Kind[] = [
  { kind: 'nobody', headers: () => ({}), asks: ownId, ...always(401) },
  { kind: 'nobody, of an unknown id', headers: () => ({}), asks: unknownId, ...always(401) },
  { kind: 'a bad key', headers: withKey(({ key }) => `${key}x`), asks: ownId, ...always(401) },
  { kind: 'an expired key', headers: withKey(({ expiredKey }) => expiredKey), asks: ownId, ...always(401) },
  { kind: 'a token of another deployment', headers: withToken(bySip, 'the secret of another deployment, quite long'), asks: ownId, ...always(401) },
  { kind: 'a token of another deployment that says admin', headers: withToken(() => ({ voicemail_role: 'admin' }), 'the secret of another deployment, quite long'), asks: ownId, ...always(401) },
  { kind: 'a token of nobody', headers: withToken(() => ({ sip_identity: 'sip:eve@sip.example.org' })), asks: ownId, ...always(403) },
  { kind: 'a user, of me', headers: user, asks: me, ...ifOwn },
  { kind: 'a user, of its own id', headers: user, asks: ownId, ...ifOwn },
  { kind: "a user, of another's id", headers: user, asks: otherId, ...always(403) },
  { kind: 'a user, of an unknown id', headers: user, asks: unknownId, ...always(403) },
  { kind: 'a user, of what is no id', headers: user, asks: noId, ...always(403) },
  { kind: "a user's token, of me", headers: withToken(bySip), asks: me, ...ifOwn },
  { kind: "a user's token, of another's id", headers: withToken(bySip), asks: otherId, ...always(403) },
  { kind: 'an admin, of an id', headers: admin, asks: otherId, ...never },
  { kind: 'an admin, of an unknown id', headers: admin, asks: unknownId, ...unlessOutside(404) },
  { kind: 'an admin, of what is no id', headers: admin, asks: noId, ...unlessOutside(404) },
  { kind: 'an admin without an account, of me', headers: admin, asks: me, ...unlessOutside(403) },
  { kind: 'an admin with an account, of me', headers: withKey(own => own.adminKey), asks: me, ...never },
  { kind: "an admin's token, of an id", headers: withToken(() => ({ voicemail_role: 'admin' })), asks: otherId, ...never },
  { kind: "an admin's token without an account, of me", headers: withToken(() => ({ voicemail_role: 'admin' })), asks: me, ...unlessOutside(403) }
]
const CODES: Record<number, string> = { 401: 'unauthorized', 403: 'forbidden', 404: 'not_found' }

t.test('the table has every JSON operation that the service has', async t => {
  const { body: { paths } } = await call('GET', '/openapi.json')
  const described = Object.entries<Record<string, { tags: string[] }>>(paths).flatMap(([path, operations]) => Object.entries(operations)
    .filter(([, { tags }]) => !tags.includes('audio') && !tags.includes('operations'))
    .map(([method]) => `${method.toUpperCase()} ${path.replace('{id}/search', '{address}/search')}`))
  t.strictSame(OPERATIONS.map(({ operation }) => operation).sort(), described.sort())
})

/** What is there, of both accounts: whoever is refused changes nothing of it. */
async function lookAt (accounts: TestAccount[]): Promise<unknown> {
  return await Promise.all(accounts.flatMap(({ id }) => ['', '/voicemails', '/api_keys'].map(async path => {
    const { status, body } = await call('GET', `/accounts/${id}${path}`)
    return { status, body: path === '/api_keys' ? body.map(({ last_used_at: _, ...facts }: Record<string, unknown>) => facts) : body }
  })))
}

for (const { kind, headers, asks, refused, refusedOutside } of KINDS) {
  t.test(`what is answered to ${kind}`, async t => {
    let accounts = [await makeAccount(), await makeAccount()] as const
    let before = await lookAt([...accounts])
    for (const { operation, body, done, own = false } of OPERATIONS) {
      const [first, second] = accounts
      const { id, of } = asks(first, second)
      const [method = '', template = ''] = operation.split(' ')
      const path = template.replace('{id}', id).replace('{uuid}', of.uuid).replace('{key_id}', String(of.keyId)).replace('{address}', of.address)
      const wanted = (template.includes('{id}') ? refused(own) : refusedOutside)
      const answer = await call(method, path, body?.(), headers(first))
      t.equal(answer.status, wanted ?? done, operation)
      if (wanted === undefined) {
        // Whatever was done is done to nobody else: the next operation begins anew.
        accounts = [await makeAccount(), await makeAccount()]
        before = await lookAt([...accounts])
        continue
      }
      t.equal(answer.body.code, CODES[wanted], `${operation}: ${answer.body.detail}`)
      t.equal(answer.headers.has('www-authenticate'), wanted === 401)
      for (const { uuid, address } of accounts) t.notOk(JSON.stringify(answer.body).includes(uuid) || JSON.stringify(answer.body).includes(address), 'tells nothing')
    }
    t.strictSame(await lookAt([...accounts]), before, 'what was refused has changed nothing')
  })
}

t.test('to a user the account of another and one that nobody has look the same', async t => {
  const [own, other] = [await makeAccount(), await makeAccount()]
  for (const { operation, body } of OPERATIONS.filter(({ operation }) => operation.includes('{id}'))) {
    const [method = '', template = ''] = operation.split(' ')
    const [known, unknown] = await Promise.all([String(other.id), '999999'].map(async id => {
      const path = template.replace('{id}', id).replace('{uuid}', other.uuid).replace('{key_id}', String(other.keyId))
      const { status, body: { request_id: _, ...problem } } = await call(method, path, body?.(), { 'x-api-key': own.key })
      return { status, problem }
    }))
    t.strictSame(known, unknown, operation)
  }
})

t.test('the permissions come before the body is looked at', async t => {
  const { id, key } = await makeAccount()
  for (const { operation } of OPERATIONS.filter(({ body }) => body !== undefined)) {
    const [method = '', template = ''] = operation.split(' ')
    const path = template.replace('{id}', String(id + 1)).replace('{uuid}', 'x')
    t.equal((await call(method, path, { wrong: true }, {})).status, 401, operation)
    t.equal((await call(method, path, { wrong: true }, { 'x-api-key': key })).status, 403, operation)
  }
})

t.end()

t.test('SECURITY.md tells who may do what, as it is tested here', async t => {
  const text = await readFile(new URL('../SECURITY.md', import.meta.url), 'utf8')
  const rows = text.slice(text.indexOf('## Who may do what')).split('\n').filter(line => line.startsWith('| `')).map(line => line.replaceAll('`', '').replace(/^\| | \|$/g, '').split(' | '))
  const expected = OPERATIONS.map(({ operation, done, own = false }) => {
    // The voicemail of the test is open still.
    const status = String(done === 409 ? 200 : done)
    return [operation.replace('{address}', '{id}'), '401', '401', own ? status : '403', '403', status]
  })
  t.strictSame(rows.sort(), expected.sort())
})

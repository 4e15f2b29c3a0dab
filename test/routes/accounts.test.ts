import t from 'tap'
import { sample, startService, type Json, type Service } from '../helper.js'
import { connectTo, head } from '../wire/connection.js'

const NOON_MS = Date.UTC(2025, 9, 9, 12, 59, 32, 789)
let nowMs = NOON_MS
const service = await startService(t, { clock: () => nowMs })
const { call, adminKey } = service

/** A GET on a connection of its own: no HTTP client between the test and the path. */
async function getRaw (path: string): ReturnType<Service['call']> {
  const connection = connectTo(t, service.url)
  // The recorder says that it sends JSON, and sends none.
  await connection.send(head('GET', path, { 'x-api-key': adminKey, 'content-type': 'application/json', 'content-length': 0 }))
  const { status, headers, body } = await connection.answer()
  connection.socket.destroy()
  return { status, headers, body: JSON.parse(body) }
}

t.test('an account is answered in exactly the shape of API.md', async t => {
  const added = await call('POST', '/accounts', { sip_uri: 'sip:Bob@SIP.example.org', email: 'bob@example.org', display_name: 'Bob ☎', shoe_size: 44 })
  t.equal(added.status, 201)
  t.equal(added.headers.get('location'), `/accounts/${added.body.id}`)
  t.match(added.headers.get('content-type'), /^application\/json/)
  t.strictSame(added.body, {
    id: added.body.id,
    sip_uri: 'sip:Bob@SIP.example.org',
    username: 'Bob',
    domain: 'SIP.example.org',
    email: 'bob@example.org',
    display_name: 'Bob ☎',
    created_at: '2025-10-09T12:59:32Z',
    call_forwardings: [],
    voicemails: { total: 0, unread: 0 }
  })
  t.ok(Number.isInteger(added.body.id) && added.body.id > 0 && added.body.id < 2 ** 31, 'a recorder reads it into 32 bits')
  t.strictSame((await call('GET', `/accounts/${added.body.id}`)).body, added.body)

  const bare = await call('POST', '/accounts', { sip_uri: 'carol@sip.example.org' })
  t.match(bare.body, { sip_uri: 'sip:carol@sip.example.org', email: null, display_name: null }, 'a bare address is taken, what was not given is null')
  const nulls = await call('POST', '/accounts', { sip_uri: 'sips:dave@sip.example.org', email: null, display_name: null })
  t.match(nulls, { status: 201, body: { sip_uri: 'sips:dave@sip.example.org', email: null, display_name: null } })
})

t.test('a second account with the same address is 409, however its domain, scheme and escapes are written', async t => {
  await call('POST', '/accounts', { sip_uri: 'sip:Erin@sip.example.org' })
  for (const same of ['sip:Erin@sip.example.org', 'Erin@SIP.Example.ORG', 'sips:Erin@sip.EXAMPLE.org', 'sip:%45rin@sip.example.org']) {
    t.match(await call('POST', '/accounts', { sip_uri: same }), { status: 409, body: { code: 'account_exists' } }, same)
  }
  for (const other of ['sip:erin@sip.example.org', 'sip:Erin@sip.example.org:5070', 'sip:Erin@example.org']) {
    t.equal((await call('POST', '/accounts', { sip_uri: other })).status, 201, other)
  }
  const racing = await Promise.all(Array.from({ length: 8 }, async () => (await call('POST', '/accounts', { sip_uri: 'sip:racer@sip.example.org' })).status))
  t.strictSame(racing.sort(), [201, 409, 409, 409, 409, 409, 409, 409], 'of many at once one wins')
})

t.test('what is no address of a user, or no email, is 422 under the name of its field', async t => {
  const { headers } = await call('GET', '/accounts')
  for (const sipUri of ['', 'bob', 'sip:sip.example.org', 'tel:+4912345', 'mailto:bob@example.org', 'sip:bob@', 'sip:bob@example.org;transport=tcp',
    'sip:bob@example.org?subject=x', 'sip:bob:secret@example.org', 'sip:bob@example..org', `sip:${'b'.repeat(2000)}@example.org`]) {
    t.match(await call('POST', '/accounts', { sip_uri: sipUri }), { status: 422, body: { code: 'validation_failed', errors: { sip_uri: [/./] } } }, sipUri.slice(0, 40))
  }
  for (const [field, value] of [
    ['sip_uri', undefined], ['sip_uri', 7], ['sip_uri', null], ['email', 'nobody'], ['email', 7], ['display_name', ''], ['display_name', ['Bob']]
  ] as const) {
    const { status, body } = await call('POST', '/accounts', { sip_uri: 'sip:frank@sip.example.org', [field]: value })
    t.equal(status, 422, `${field} ${JSON.stringify(value)}`)
    t.strictSame(Object.keys(body.errors), [field])
  }
  t.equal((await call('GET', '/accounts')).headers.get('x-total-count'), headers.get('x-total-count'), 'none of them was added')
})

t.test('a recorder finds an account by its address in the path, @ and : literal or escaped, with or without a scheme', async t => {
  const { body: account } = await call('POST', '/accounts', { sip_uri: 'sip:grace+1@sip.example.org' })
  for (const address of ['grace+1@sip.example.org', 'grace%2B1%40sip.example.org', 'grace+1@SIP.EXAMPLE.ORG', 'sip:grace+1@sip.example.org',
    'sip%3Agrace+1%40sip.example.org', 'sips:grace+1@sip.example.org', 'sip:grace+1@sip.example.org;transport=tls;lr', '%67race+1@sip.example.org']) {
    for (const prefix of ['', '/api']) {
      const found = await getRaw(`${prefix}/accounts/${address}/search`)
      t.equal(found.status, 200, prefix + address)
      t.strictSame(found.body, account)
    }
  }
  for (const address of ['nobody@sip.example.org', 'Grace+1@sip.example.org', 'grace+1@sip.example.org:5070', 'me', String(account.id), '%20', '%00', 'sip%3A',
    'a%2Fb@sip.example.org', '..%2F..%2Fetc', '%F0%9F%93%9E@sip.example.org', `${'x'.repeat(2000)}@sip.example.org`, 'x'.repeat(5000)]) {
    t.match(await getRaw(`/accounts/${address}/search`), { status: 404, body: { code: 'not_found' } }, address.slice(0, 40))
  }
  const { body: slashed } = await call('POST', '/accounts', { sip_uri: 'sip:a/b@sip.example.org' })
  t.strictSame((await getRaw('/accounts/a%2Fb@sip.example.org/search')).body, slashed, 'an escaped slash belongs to the address')
})

t.test('accounts are listed newest first, in pages, with a Link where there is more', async t => {
  const { body: all, headers } = await call('GET', '/accounts')
  const ids: number[] = all.map(({ id }: { id: number }) => id)
  t.strictSame(ids, [...ids].sort((a, b) => b - a))
  t.equal(headers.get('x-total-count'), String(ids.length))
  t.equal(headers.get('link'), null)

  for (const limit of [1, 4, ids.length - 1, ids.length, 500]) {
    const found: number[] = []
    let path: string | undefined = `/api/accounts?limit=${limit}`
    for (let pages = 0; path !== undefined; pages++) {
      const { body, headers } = await call('GET', path)
      t.equal(headers.get('x-total-count'), String(ids.length), 'the count is that of all pages')
      found.push(...body.map(({ id }: { id: number }) => id))
      const [, next] = /^<(\/api\/accounts\?[^>]+)>; rel="next"$/.exec(headers.get('link') ?? '') ?? []
      t.equal(next !== undefined, found.length < ids.length, `limit ${limit}, page ${pages}: a Link only where there is more`)
      path = next
    }
    t.strictSame(found, ids, `limit ${limit}`)
  }
  t.strictSame((await call('GET', `/accounts?before=${ids[2]}&limit=2`)).body, all.slice(3, 5))
  t.strictSame((await call('GET', '/accounts?before=1')).body, [])
  for (const [field, value] of [['limit', 0], ['limit', 501], ['limit', 1.5], ['limit', 'x'], ['limit', ''], ['before', 0], ['before', 'x'], ['before', '%27']]) {
    const { status, body } = await call('GET', `/accounts?${field}=${value}`)
    t.match({ status, fields: Object.keys(body.errors ?? {}) }, { status: 422, fields: [field] }, `${field}=${value}`)
  }
  t.equal((await call('GET', '/accounts?limit=1&limit=2')).status, 422)
})

t.test('an account counts its voicemails, those stored and those unread', async t => {
  const { id, key } = await service.addUser()
  const slots = [await service.openSlot(id), await service.openSlot(id), await service.openSlot(id)]
  const wav = await sample('ok/flexisip-voicemail-0.27s.wav')
  for (const { uploadUrl } of slots.slice(0, 2)) await fetch(uploadUrl, { method: 'PUT', body: wav })
  await call('PATCH', `/accounts/${id}/voicemails/${slots[0]?.id}`, { read: true })
  t.strictSame((await call('GET', '/accounts/me', undefined, { 'x-api-key': key })).body.voicemails, { total: 2, unread: 1 })
  t.strictSame((await call('GET', '/accounts/user1@sip.example.org/search')).body.voicemails, { total: 2, unread: 1 })
  t.strictSame((await call('GET', '/accounts')).body[0].voicemails, { total: 2, unread: 1 })
})

t.test('deleting an account takes its keys, voicemails and files away, and leaves those of others', async t => {
  const wav = await sample('ok/flexisip-voicemail-0.27s.wav')
  const [gone, kept] = [await service.addUser(), await service.addUser()]
  const before = await service.files()
  const downloads: string[] = []
  for (const { id } of [gone, gone, kept]) {
    const { uploadUrl } = await service.openSlot(id)
    const uploaded: Json = await (await fetch(uploadUrl, { method: 'PUT', body: wav })).json()
    downloads.push(uploaded.download_url)
  }
  const open = await service.openSlot(gone.id)
  t.equal((await service.files()).length, before.length + 3)

  const deleted = await call('DELETE', `/accounts/${gone.id}`)
  t.equal(deleted.status, 200)
  t.strictSame(deleted.body, { id: gone.id, deleted: true })
  t.equal((await service.files()).length, before.length + 1, 'its files are gone')
  t.strictSame(await Promise.all(downloads.map(async url => (await fetch(url)).status)), [404, 404, 200])
  t.equal((await fetch(open.uploadUrl, { method: 'PUT', body: wav })).status, 404, 'nothing can be uploaded to a slot of it')
  t.equal((await service.files()).length, before.length + 1)
  t.equal((await call('GET', '/accounts/me', undefined, { 'x-api-key': gone.key })).status, 401, 'its key opens nothing')
  t.equal((await call('GET', '/accounts/me', undefined, { 'x-api-key': kept.key })).status, 200)
  for (const [method, path] of [['GET', ''], ['DELETE', ''], ['GET', '/voicemails'], ['GET', '/api_keys']] as const) {
    t.match(await call(method, `/accounts/${gone.id}${path}`), { status: 404, body: { code: 'not_found' } }, method + path)
  }
  const next = await service.addUser()
  t.ok(next.id > kept.id, 'an id is never given twice')
})

t.test('a key is made, shown once, listed without itself, and taken back at once', async t => {
  nowMs = NOON_MS
  const { id } = await service.addUser()
  const path = `/accounts/${id}/api_keys`
  const made = await call('POST', path, { name: 'phone', expires_at: '2026-01-01T01:00:00+01:00' })
  t.equal(made.status, 201)
  t.equal(made.headers.get('location'), `${path}/${made.body.id}`)
  t.equal(made.headers.get('cache-control'), 'no-store', 'no cache keeps a secret')
  const { key, ...facts } = made.body
  t.match(key, /^vm_[A-Za-z0-9_-]{40}$/)
  t.strictSame(facts, {
    id: facts.id, name: 'phone', role: 'user', created_at: '2025-10-09T12:59:32Z', expires_at: '2026-01-01T00:00:00Z', last_used_at: null
  })
  const admin = await call('POST', path, { name: 'script', role: 'admin', expires_at: null })
  t.match(admin.body, { role: 'admin', expires_at: null })
  t.not(admin.body.key, key)

  const listed = await call('GET', path)
  t.equal(listed.status, 200)
  const { key: _, ...adminFacts } = admin.body
  t.strictSame(listed.body.slice(1), [facts, adminFacts], 'the list has no key in it')
  t.equal((await call('GET', '/accounts', undefined, { 'x-api-key': admin.body.key })).status, 200, 'the role is the key\'s')
  t.equal((await call('GET', '/accounts/me', undefined, { 'x-api-key': admin.body.key })).body.id, id, 'an admin with an account is somebody')

  t.strictSame((await call('DELETE', `${path}/${facts.id}`)).body, { id: facts.id, deleted: true })
  t.equal((await call('GET', '/accounts/me', undefined, { 'x-api-key': key })).status, 401)
  t.equal((await call('DELETE', `${path}/${facts.id}`)).status, 404)
  t.equal((await call('GET', path)).body.length, 2)

  const other = await service.addUser()
  const [theirs] = (await call('GET', `/accounts/${other.id}/api_keys`)).body
  for (const keyId of [theirs.id, 0, 999_999, '0x1', '1.0', '1e0', '%201', '', 'x', '9'.repeat(30)]) {
    t.match(await call('DELETE', `${path}/${keyId}`), { status: 404, body: { code: 'not_found' } }, `key ${keyId}`)
  }
  t.equal((await call('GET', '/accounts/me', undefined, { 'x-api-key': other.key })).status, 200, 'a key of another account is not touched')
})

t.test('a key of a wrong shape is 422, and a moment that is none never makes a key that does not expire', async t => {
  const { id } = await service.addUser()
  const path = `/accounts/${id}/api_keys`
  for (const [field, value] of [
    ['name', undefined], ['name', ''], ['name', 'x'.repeat(201)], ['role', 'owner'], ['role', null], ['expires_at', 'tomorrow'], ['expires_at', 0], ['expires_at', '2026-02-30T00:00:00Z'],
    ['expires_at', '2016-12-31T23:59:60Z'], ['expires_at', '9999-12-31T23:59:59-23:59'], ['expires_at', '0000-01-01T00:00:00+01:00']
  ] as const) {
    const { status, body } = await call('POST', path, { name: 'x', [field]: value })
    t.match({ status, fields: Object.keys(body.errors ?? {}) }, { status: 422, fields: [field] }, `${field} ${String(value).slice(0, 40)}`)
  }
  t.equal((await call('GET', path)).body.length, 1, 'none of them was made')
})

t.test('an account that goes while a slot or a key is being made for it is a 404, not an error of ours', async t => {
  let meanwhile = async (): Promise<void> => {}
  const { call, addUser } = await startService(t, {
    meddle: data => {
      const { freeBytes } = data.audioStore
      data.audioStore.freeBytes = async () => {
        await meanwhile()
        return await freeBytes()
      }
      const { find } = data.accountStore
      data.accountStore.find = async id => {
        const account = await find(id)
        await meanwhile()
        return account
      }
    }
  })
  for (const [path, body] of [['voicemails', { sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' }], ['api_keys', { name: 'late' }]] as const) {
    const { id } = await addUser()
    meanwhile = async () => {
      meanwhile = async () => {}
      t.equal((await call('DELETE', `/accounts/${id}`)).status, 200)
    }
    t.match(await call('POST', `/accounts/${id}/${path}`, body), { status: 404, body: { code: 'not_found' } }, path)
  }
})

t.end()

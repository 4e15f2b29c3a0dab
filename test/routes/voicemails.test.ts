import { createHash } from 'node:crypto'
import t from 'tap'
import { openData } from '../../src/commands/data.js'
import { readConfig } from '../../src/config.js'
import { DURATIONS, sample, startService, typeOf, type Answer, type Json } from '../helper.js'

const UUID_7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
const NOBODYS_UUID = '0199c0de-0000-7000-8000-000000000000'
const NO_UUIDS = ['0', 'me', 'x', NOBODYS_UUID.slice(1), `${NOBODYS_UUID}0`, NOBODYS_UUID.replaceAll('-', ''), '%00', '%27%20or%201=1--', '..%2F..', '%F0%9F%93%9E', 'a'.repeat(1500), 'a'.repeat(5000)]
const NOON_MS = Date.UTC(2025, 9, 9, 12, 59, 32, 789)
let nowMs = NOON_MS
const service = await startService(t, { settings: { PUBLIC_URL: 'https://vm.example.org' }, clock: () => nowMs })
const alice = await service.addUser()
const bob = await service.addUser()

const as = (key: string) => async (method: string, path: string, body?: unknown): Promise<Answer> => await service.call(method, path, body, { 'x-api-key': key })
const asAlice = as(alice.key)
const idsOf = ({ body }: Answer): string[] => body.map(({ id }: { id: string }) => id)
const NEW_SLOT = { sip_from: 'sip:carol@sip.example.org', content_type: 'audio/wav' }
const wav = await sample('ok/flexisip-voicemail-0.27s.wav')

/** Uploads to a signed URL, which begins with the proxy's address, and not with the one that listens. */
async function upload (url: string, body: Uint8Array): Promise<Response> {
  return await fetch(service.url + new URL(url).pathname, { method: 'PUT', body })
}

/** Each at a moment of its own, the first the oldest: the n-th is stored for true, open for false. */
async function fill (call: typeof asAlice, stored: boolean[]): Promise<string[]> {
  const ids: string[] = []
  for (const isStored of stored) {
    nowMs += 1000
    const { body: slot } = await call('POST', '/accounts/me/voicemails', NEW_SLOT)
    if (isStored) await upload(slot.upload_url, wav)
    ids.push(slot.id)
  }
  return ids.reverse()
}

t.test('a slot is answered in exactly the shape of API.md', async t => {
  nowMs = NOON_MS
  const opened = await asAlice('POST', '/accounts/me/voicemails', { ...NEW_SLOT, id: 'mine', shoe_size: 44 })
  const { id, upload_url: uploadUrl } = opened.body
  t.equal(opened.status, 201)
  t.equal(opened.headers.get('location'), `/accounts/${alice.id}/voicemails/${id}`)
  t.match(opened.headers.get('content-type'), /^application\/json/)
  t.match(id, UUID_7)
  t.match(uploadUrl, /^https:\/\/vm\.example\.org\/[A-Za-z0-9/._~;=:@-]+$/)
  t.strictSame(opened.body, {
    id,
    sip_from: 'sip:carol@sip.example.org',
    upload_url: uploadUrl,
    download_url: null,
    max_upload_size: 15_000_000,
    content_type: 'audio/wav',
    created_at: '2025-10-09T12:59:32Z',
    uploaded_at: null,
    status: 'pending',
    expires_at: '2025-10-09T13:59:32Z'
  })
  t.strictSame((await asAlice('GET', opened.headers.get('location') ?? '')).body, {
    id,
    sip_from: 'sip:carol@sip.example.org',
    get_url: null,
    file_size: null,
    content_type: 'audio/wav',
    created_at: '2025-10-09T12:59:32Z',
    uploaded_at: null,
    download_url: null,
    duration: null,
    status: 'pending',
    read_at: null,
    sha256: null,
    failure: null
  })
})

t.test('a slot takes any SIP address as it was written, and a bare one as sip:', async t => {
  for (const [given, kept] of [
    ['sip:alice@sip.example.org', undefined], ['sips:alice@sip.example.org:5061', undefined], ['sip:sip.example.org', undefined],
    ['sip:+49123;isub=1@[2001:db8::1];transport=tls?subject=x', undefined], ['SIP:Alice@SIP.example.org', undefined],
    ['alice@sip.example.org', 'sip:alice@sip.example.org'], ["sip:o'neill%22@h.example", undefined]
  ]) {
    for (const contentType of ['audio/wav', 'audio/opus']) {
      const { status, body } = await asAlice('POST', '/accounts/me/voicemails', { sip_from: given, content_type: contentType })
      t.match({ status, body }, { status: 201, body: { sip_from: kept ?? given, content_type: contentType } }, given ?? '')
    }
  }
})

t.test('a slot of a wrong shape is 422 with the name of every wrong field, and opens nothing', async t => {
  const total = (await asAlice('GET', '/accounts/me/voicemails')).headers.get('x-total-count')
  for (const [body, fields] of [
    [{}, ['content_type', 'sip_from']],
    [{ ...NEW_SLOT, sip_from: undefined }, ['sip_from']],
    [{ ...NEW_SLOT, sip_from: null }, ['sip_from']],
    [{ ...NEW_SLOT, sip_from: '' }, ['sip_from']],
    [{ ...NEW_SLOT, sip_from: 'tel:+4912345' }, ['sip_from']],
    [{ ...NEW_SLOT, sip_from: `sip:${'a'.repeat(10_000)}@h.example` }, ['sip_from']],
    [{ ...NEW_SLOT, content_type: 'audio/mpeg' }, ['content_type']],
    [{ ...NEW_SLOT, content_type: 'AUDIO/WAV' }, ['content_type']],
    [{ ...NEW_SLOT, content_type: 7 }, ['content_type']],
    [[], ['body']],
    ['sip:alice@sip.example.org', ['body']],
    [undefined, ['body']]
  ]) {
    const answer = await asAlice('POST', '/accounts/me/voicemails', body)
    t.match(answer, { status: 422, body: { code: 'validation_failed' } }, JSON.stringify(body)?.slice(0, 60) ?? 'no body')
    t.strictSame(Object.keys(answer.body.errors).sort(), fields)
  }
  t.equal((await asAlice('GET', '/accounts/me/voicemails')).headers.get('x-total-count'), total)
})

t.test('the list has open slots and stored voicemails, newest first, each in the shape of a single one', async t => {
  const { key } = await service.addUser()
  const call = as(key)
  const empty = await call('GET', '/accounts/me/voicemails')
  t.match(empty, { status: 200, body: [] })
  t.strictSame(['x-total-count', 'x-unread-count', 'link'].map(name => empty.headers.get(name)), ['0', '0', null])

  const ids = await fill(call, [true, false, true, true, false])
  await call('PATCH', `/accounts/me/voicemails/${ids[4]}`, { read: true })
  for (const [query, wanted] of [
    ['', [0, 1, 2, 3, 4]],
    ['?status=pending', [0, 3]],
    ['?status=stored', [1, 2, 4]],
    ['?unread=true', [1, 2]],
    ['?unread=false', [4]],
    ['?unread=true&status=stored', [1, 2]],
    ['?unread=true&status=pending', []],
    ['?colour=blue', [0, 1, 2, 3, 4]]
  ] as const) {
    const listed = await call('GET', `/accounts/me/voicemails${query}`)
    t.strictSame(idsOf(listed), wanted.map(n => ids[n]), query)
    t.equal(listed.headers.get('x-total-count'), String(wanted.length), 'counted after the filters')
    t.equal(listed.headers.get('x-unread-count'), '2', 'whatever the filters')
    t.equal(listed.headers.get('link'), null)
    for (const item of listed.body) t.strictSame(item, (await call('GET', `/accounts/me/voicemails/${item.id}`)).body)
  }
  const head = await fetch(`${service.url}/accounts/me/voicemails`, { method: 'HEAD', headers: { 'x-api-key': key } })
  t.equal(head.headers.get('x-total-count'), '5')
})

t.test('what was asked for before shows at once what another process changed, and its signed URLs are never older than a minute', async t => {
  const { id, key } = await service.addUser()
  const call = as(key)
  const [first, second] = await fill(call, [true, true])
  const urlsOf = async (): Promise<string[]> => {
    const { body: list } = await call('GET', '/accounts/me/voicemails')
    const { body: one } = await call('GET', `/accounts/me/voicemails/${first}`)
    return [...list, one].map(({ get_url: url }: { get_url: string }) => url)
  }
  const before = await urlsOf()
  t.strictSame(await urlsOf(), before)
  nowMs += 61_000
  const after = await urlsOf()
  const expiry = (url = ''): number => Number(/expires=(\d+)/.exec(url)?.[1])
  t.strictSame(after.map(expiry), before.map(url => expiry(url) + 61))

  const other = await openData(readConfig({ DATA_DIR: service.dataFolder }), () => nowMs)
  t.teardown(async () => { await other.close() })
  await other.voicemailStore.markRead(first ?? '', nowMs)
  t.match((await call('GET', `/accounts/me/voicemails/${first}`)).body, { read_at: new Date(nowMs).toISOString().replace(/\.\d+/, '') })
  await other.voicemailStore.remove(id, second ?? '', { caller: 'test', address: null, atMs: nowMs })
  t.strictSame(idsOf(await call('GET', '/accounts/me/voicemails')), [first])
  await other.upkeepStore.markLost(first ?? '', 'gone', nowMs)
  t.match((await call('GET', '/accounts/me/voicemails')).body, [{ failure: { code: 'audio_lost' } }])
  t.match((await call('GET', `/accounts/me/voicemails/${first}`)).body, { failure: { code: 'audio_lost' } })
  t.equal((await call('GET', `/accounts/me/voicemails/${second}`)).status, 404)
})

t.test('slots of one millisecond are listed in the order in which they were opened', async t => {
  const { key } = await service.addUser()
  const ids: string[] = []
  for (let n = 0; n < 20; n++) ids.unshift((await as(key)('POST', '/accounts/me/voicemails', NEW_SLOT)).body.id)
  t.strictSame(idsOf(await as(key)('GET', '/accounts/me/voicemails')), ids)
})

t.test('the list comes in pages that a Link leads through, with the filters and below /api too', async t => {
  const { key } = await service.addUser()
  const call = as(key)
  const ids = await fill(call, [true, false, true, false, true])
  for (const [prefix, limit, filter, wanted] of [
    ['', 1, '', ids], ['/api', 2, '', ids], ['', 4, '', ids], ['', 5, '', ids], ['', 500, '', ids],
    ['/api', 1, '&status=stored', [ids[0], ids[2], ids[4]]], ['', 3, '&unread=true', [ids[0], ids[2], ids[4]]], ['', 2, '&status=pending', [ids[1], ids[3]]]
  ] as const) {
    const found: string[] = []
    let path: string | undefined = `${prefix}/accounts/me/voicemails?limit=${limit}${filter}`
    while (path !== undefined) {
      const page = await call('GET', path)
      t.ok(page.body.length <= limit)
      t.equal(page.headers.get('x-total-count'), String(wanted.length), 'counted before paging')
      t.equal(page.headers.get('x-unread-count'), '3')
      found.push(...idsOf(page))
      const [, next] = /^<([^>]+)>; rel="next"$/.exec(page.headers.get('link') ?? '') ?? []
      t.equal(next !== undefined, found.length < wanted.length, 'a Link only where there is more')
      if (next !== undefined) t.ok(next.startsWith(`${prefix}/accounts/me/voicemails?`), next)
      path = next
    }
    t.strictSame(found, wanted, `limit ${limit}${filter}`)
  }
  t.strictSame(idsOf(await call('GET', `/accounts/me/voicemails?before=${ids[1]?.toUpperCase()}`)), ids.slice(2))
  t.strictSame(idsOf(await call('GET', `/accounts/me/voicemails?before=${ids[2]?.slice(0, -12)}ffffffffffff`)), ids.slice(2), 'one that never was is a moment still')
  for (const [field, value] of [
    ['status', 'heard'], ['status', ''], ['unread', 'yes'], ['unread', '1'], ['unread', ''], ['limit', 0], ['limit', 501], ['limit', -1], ['limit', 1.5], ['limit', 'all'],
    ['before', 'x'], ['before', 7], ['before', `${NOBODYS_UUID}0`]
  ]) {
    const { status, body } = await call('GET', `/accounts/me/voicemails?${field}=${value}`)
    t.match({ status, fields: Object.keys(body.errors ?? {}) }, { status: 422, fields: [field] }, `${field}=${value}`)
  }
})

t.test('PATCH marks as read and unread; a second true keeps the first moment', async t => {
  const { key } = await service.addUser()
  const call = as(key)
  const [stored, open] = await fill(call, [false, true])
  const path = `/accounts/me/voicemails/${stored}`
  const { body: before } = await call('GET', path)
  nowMs = NOON_MS + 86_400_000
  const read = await call('PATCH', path, { read: true, sha256: 'x' })
  t.equal(read.status, 200)
  const withoutUrls = ({ get_url: _, download_url: __, ...facts }: Json): Json => facts
  t.strictSame(withoutUrls(read.body), withoutUrls({ ...before, read_at: '2025-10-10T12:59:32Z' }), 'nothing else changes')
  nowMs += 60_000
  t.equal((await call('PATCH', path, { read: true })).body.read_at, '2025-10-10T12:59:32Z')
  t.equal((await call('GET', path)).body.read_at, '2025-10-10T12:59:32Z')
  t.equal((await call('PATCH', path, { read: false })).body.read_at, null)
  t.equal((await call('PATCH', path, { read: true })).body.read_at, '2025-10-10T13:00:32Z')

  t.match(await call('PATCH', `/accounts/me/voicemails/${open}`, { read: true }), { status: 409, body: { code: 'voicemail_pending' } })
  t.match(await call('PATCH', `/accounts/me/voicemails/${open}`, { read: false }), { status: 409, body: { code: 'voicemail_pending' } })
  for (const body of [{}, { read: 'true' }, { read: 1 }, { read: null }]) {
    t.match(await call('PATCH', path, body), { status: 422, body: { errors: { read: [/./] } } }, JSON.stringify(body))
  }
  t.equal((await call('GET', path)).body.read_at, '2025-10-10T13:00:32Z')
})

t.test('a voicemail is a 404 under every path but its own, and so is what is no UUID', async t => {
  const { body: { id, upload_url: uploadUrl } } = await asAlice('POST', '/accounts/me/voicemails', NEW_SLOT)
  await upload(uploadUrl, wav)
  const methods = [['GET', undefined], ['PATCH', { read: true }], ['DELETE', undefined]] as const
  for (const [method, body] of methods) {
    for (const uuid of [id, NOBODYS_UUID, ...NO_UUIDS]) {
      t.match(await as(bob.key)(method, `/accounts/me/voicemails/${uuid}`, body), { status: 404, body: { code: 'not_found' } }, `${method} ${uuid.slice(0, 40)}`)
    }
    t.match(await service.call(method, `/accounts/${bob.id}/voicemails/${id}`, body), { status: 404 }, 'not below another account either, to an admin')
  }
  const { status, body } = await asAlice('GET', `/accounts/me/voicemails/${id}`)
  t.match({ status, body }, { status: 200, body: { read_at: null, status: 'stored' } })
  t.equal((await asAlice('GET', `/api/accounts/${alice.id}/voicemails/${id.toUpperCase()}`)).body.id, id, 'a UUID is the same in upper case')
})

for (const name of ['ok/pcm16-16k.wav', 'ok/speech-24k.opus']) {
  t.test(`the whole life of ${name}: slot, upload, list, download, seek, delete`, async t => {
    const bytes = await sample(name)
    const filesBefore = await service.files()
    for (const prefix of ['', '/api']) {
      nowMs = NOON_MS
      const { body: slot } = await asAlice('POST', `${prefix}/accounts/${alice.id}/voicemails`, { sip_from: 'carol@sip.example.org', content_type: typeOf(name) })
      nowMs += 10_000
      const uploaded = await upload(`https://vm.example.org${prefix}${new URL(slot.upload_url).pathname}`, bytes)
      t.equal(uploaded.status, 200)
      const answer: Json = await uploaded.json()
      const url: string = answer.download_url
      t.strictSame(answer, {
        id: slot.id,
        sip_from: 'sip:carol@sip.example.org',
        get_url: url,
        file_size: bytes.length,
        content_type: typeOf(name),
        created_at: '2025-10-09T12:59:32Z',
        uploaded_at: '2025-10-09T12:59:42Z',
        download_url: url,
        duration: DURATIONS[name.slice(3)],
        status: 'stored',
        read_at: null,
        sha256: createHash('sha256').update(bytes).digest('hex'),
        failure: null
      })
      t.match(url, /^https:\/\/vm\.example\.org\/[A-Za-z0-9/._~;=:@-]+$/)
      t.strictSame((await asAlice('GET', `${prefix}/accounts/me/voicemails?limit=1`)).body, [answer])
      t.equal((await service.files()).length, filesBefore.length + 1)

      const path = prefix + new URL(url).pathname
      const whole = await fetch(service.url + path)
      t.equal(whole.status, 200)
      t.ok(bytes.equals(Buffer.from(await whole.arrayBuffer())), 'what comes back is what was sent')
      const part = await fetch(service.url + path, { headers: { range: 'bytes=1000-1999' } })
      t.equal(part.status, 206)
      t.ok(bytes.subarray(1000, 2000).equals(Buffer.from(await part.arrayBuffer())))
      t.equal((await asAlice('GET', `${prefix}/accounts/me/voicemails/${slot.id}`)).body.read_at, null, 'listening alone changes nothing')

      const deleted = await asAlice('DELETE', `${prefix}/accounts/me/voicemails/${slot.id}`)
      t.equal(deleted.status, 200)
      t.strictSame(deleted.body, { id: slot.id, deleted: true })
      t.strictSame((await service.files()).sort(), filesBefore.sort(), 'the file goes with the row')
      for (const method of ['GET', 'DELETE']) t.match(await asAlice(method, `${prefix}/accounts/me/voicemails/${slot.id}`), { status: 404, body: { code: 'not_found' } })
      t.equal((await asAlice('PATCH', `${prefix}/accounts/me/voicemails/${slot.id}`, { read: true })).status, 404)
      t.equal((await fetch(service.url + path)).status, 404)
      t.equal((await upload(slot.upload_url, bytes)).status, 404, 'gone is gone, to its upload URL too')
      t.strictSame((await service.files()).sort(), filesBefore.sort())
    }
  })
}

t.test('what ended the last attempt of an open slot is told by its failure, and success clears it', async t => {
  nowMs = NOON_MS
  const { body: slot } = await asAlice('POST', '/accounts/me/voicemails', NEW_SLOT)
  nowMs += 5000
  const refused = await upload(slot.upload_url, await sample('bad/html-named.wav'))
  const problem: Json = await refused.json()
  t.match({ status: refused.status, problem }, { status: 415, problem: { code: 'unsupported_audio' } })
  const path = `/accounts/me/voicemails/${slot.id}`
  t.strictSame((await asAlice('GET', path)).body.failure, { code: 'unsupported_audio', detail: problem.detail, at: '2025-10-09T12:59:37Z' })
  t.equal((await upload(slot.upload_url, wav)).status, 200)
  t.match((await asAlice('GET', path)).body, { status: 'stored', failure: null })
})

t.end()

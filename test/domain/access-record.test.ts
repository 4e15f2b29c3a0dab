import t from 'tap'
import { createAccessRecord } from '../../src/domain/access-record.js'
import { sample, startService, type Answer, type Json } from '../helper.js'

const MINUTE_MS = 60_000
const audio = await sample('ok/flexisip-voicemail-0.27s.wav')

let now = Date.parse('2026-01-02T03:04:05Z')
const service = await startService(t, { settings: { TRUST_PROXY: '127.0.0.1' }, clock: () => now })
const { call, addUser, openSlot, url, data, log } = service
const bob = await addUser()
const carol = await addUser()

async function store (): Promise<{ id: string, audioUrl: string }> {
  const { id, path } = await openSlot(bob.id)
  const response = await fetch(url + path, { method: 'PUT', body: audio })
  const { download_url: audioUrl }: Json = await response.json()
  return { id, audioUrl }
}

async function get (audioUrl: string, headers: Record<string, string> = {}, method = 'GET'): Promise<number> {
  const response = await fetch(audioUrl, { method, headers })
  await response.arrayBuffer()
  return response.status
}

const eventsOf = async (id: string, headers?: Record<string, string>): Promise<Answer> => await call('GET', `/accounts/${bob.id}/voicemails/${id}/events`, undefined, headers)
const kinds = async (id: string): Promise<string[]> => (await eventsOf(id)).body.map(({ kind }: Json) => kind)

/** An event is noted beside the answer: waits until there are so many. */
async function eventsWhen (id: string, count: number): Promise<Json[]> {
  for (;;) {
    const { body } = await eventsOf(id)
    if (body.length >= count) return body
  }
}

t.test('it is kept who listened, downloaded and deleted, when and from where', async t => {
  const { id, audioUrl } = await store()
  t.strictSame((await eventsOf(id)).body, [], 'nobody yet')
  t.equal(await get(audioUrl), 200)
  t.strictSame(await eventsWhen(id, 1), [{ kind: 'listened', at: '2026-01-02T03:04:05Z', caller: 'signed URL', address: '127.0.0.1' }])
  now += 1000
  t.equal(await get(`${audioUrl}?download=1`, { 'x-forwarded-for': '192.0.2.7' }), 200)
  t.strictSame((await eventsWhen(id, 2))[1], { kind: 'downloaded', at: '2026-01-02T03:04:06Z', caller: 'signed URL', address: '192.0.2.7' }, 'oldest first, behind a proxy too')
  await call('PATCH', `/accounts/${bob.id}/voicemails/${id}`, { read: true })
  t.strictSame(await kinds(id), ['listened', 'downloaded'], 'to mark is not to listen')

  now += 1000
  t.equal((await call('DELETE', `/accounts/me/voicemails/${id}`, undefined, { 'x-api-key': bob.key })).status, 200)
  const [{ id: keyId } = { id: 0 }]: Json[] = (await call('GET', `/accounts/${bob.id}/api_keys`)).body
  const deletion = [{ kind: 'deleted', at: '2026-01-02T03:04:07Z', caller: `key ${keyId}`, address: '127.0.0.1' }]
  t.strictSame((await eventsOf(id)).body, deletion, 'of what is deleted only its deletion is left')
  t.strictSame((await call('GET', `/accounts/me/voicemails/${id}/events`, undefined, { 'x-api-key': bob.key })).body, deletion, 'for its owner too')
  t.equal((await eventsOf(id, { 'x-api-key': carol.key })).status, 403)
  t.equal((await call('GET', `/accounts/me/voicemails/${id}/events`, undefined, { 'x-api-key': carol.key })).status, 404, 'for others there is nothing')
  t.equal((await call('GET', `/accounts/${carol.id}/voicemails/${id}/events`)).status, 404)

  const other = await store()
  await call('DELETE', `/accounts/${bob.id}/voicemails/${other.id}`)
  t.match((await eventsOf(other.id)).body, [{ kind: 'deleted', caller: 'admin key' }])
  const open = await openSlot(bob.id)
  t.strictSame((await eventsOf(open.id)).body, [])
  await call('DELETE', `/accounts/${bob.id}/voicemails/${open.id}`)
  t.strictSame(await kinds(open.id), ['deleted'], 'a slot that was open')
  for (const unknown of ['01890000-0000-7000-8000-000000000001', 'nothing']) t.match(await eventsOf(unknown), { status: 404, body: { code: 'not_found' } })
})

t.test('the events of a voicemail are found by its id in upper case, as the voicemail is', async t => {
  const { id } = await store()
  t.equal((await call('GET', `/accounts/${bob.id}/voicemails/${id.toUpperCase()}`)).status, 200)
  t.equal((await eventsOf(id.toUpperCase())).status, 200)
})

t.test('range requests of one listening are one event; what sends no audio is none', async t => {
  const { id, audioUrl } = await store()
  const etag = (await fetch(audioUrl, { method: 'HEAD' })).headers.get('etag') ?? ''
  t.equal(await get(audioUrl, { 'if-none-match': etag }), 304)
  t.equal(await get(audioUrl, { range: 'bytes=999999-' }), 416)
  t.equal(await get(audioUrl, { 'if-match': '"other"' }), 412)
  t.equal(await get(audioUrl.replace(/signature=./, 'signature=!')), 403)
  t.strictSame(await kinds(id), [])

  for (const range of ['bytes=0-1', 'bytes=0-', 'bytes=2000-', 'bytes=100-200']) {
    t.equal(await get(audioUrl, { range }), 206)
    now += MINUTE_MS
  }
  await Promise.all(Array.from({ length: 5 }, async () => await get(audioUrl)))
  const { body: { download_url: signedAnew } } = await call('GET', `/accounts/${bob.id}/voicemails/${id}`)
  await get(signedAnew)
  t.equal(await get(audioUrl, { 'x-forwarded-for': '192.0.2.8' }), 200)
  t.match(await eventsWhen(id, 2), [{ kind: 'listened', address: '127.0.0.1' }, { kind: 'listened', address: '192.0.2.8' }], 'from another place it is another listening')
  await get(audioUrl)
  now += 10 * MINUTE_MS
  await get(audioUrl)
  t.strictSame((await eventsWhen(id, 3)).map(({ address }) => address), ['127.0.0.1', '192.0.2.8', '127.0.0.1'], 'and later too')
})

t.test('a voicemail keeps its last thousand events', async t => {
  const { id } = await store()
  const access = createAccessRecord({ eventStore: data.eventStore, clock: () => now })
  await Promise.all(Array.from({ length: 1010 }, async (_, n) => { await access.noteAccess({ id, accountId: bob.id }, 'listened', `192.0.2.${n}`) }))
  const { body } = await eventsOf(id)
  t.equal(body.length, 1000)
  t.strictSame([body[0].address, body[999].address], ['192.0.2.10', '192.0.2.1009'], 'the oldest went')
  await call('DELETE', `/accounts/${bob.id}/voicemails/${id}`)
  t.strictSame(await kinds(id), ['deleted'])
})

t.test('a record that cannot be written keeps nobody from listening, and nobody from deleting', async t => {
  const { id, audioUrl } = await store()
  const { add, list } = data.eventStore
  let failures = 0
  data.eventStore.add = async () => {
    failures += 1
    throw new Error('the disk is full')
  }
  t.teardown(() => { Object.assign(data.eventStore, { add, list }) })
  t.equal(await get(audioUrl), 200)
  t.equal(await get(audioUrl), 200, 'and the note is tried again')
  t.equal(failures, 2)
  t.strictSame(await kinds(id), [])
  data.eventStore.add = add
  t.equal(await get(audioUrl), 200)
  t.match(await eventsWhen(id, 1), [{ kind: 'listened' }])

  data.eventStore.list = async () => { throw new Error('a page is damaged') }
  t.match(await eventsOf(id), { status: 500, body: { code: 'internal_error' } })
  t.notMatch(JSON.stringify((await eventsOf(id)).body), /damaged/)
  t.match(log.join(''), /damaged/)
})

t.test('what comes after the deletion adds nothing to it', async t => {
  const { id } = await store()
  const access = createAccessRecord({ eventStore: data.eventStore, clock: () => now })
  await call('DELETE', `/accounts/${bob.id}/voicemails/${id}`)
  await access.noteAccess({ id, accountId: bob.id }, 'listened', '192.0.2.1')
  t.strictSame((await access.list(bob.id, id, false)).map(({ kind }) => kind), ['deleted'])
})

t.test('with an account its events go', async t => {
  const dave = await addUser()
  const { id, path } = await openSlot(dave.id)
  const response = await fetch(url + path, { method: 'PUT', body: audio })
  const { download_url: audioUrl }: Json = await response.json()
  await get(audioUrl)
  while ((await data.eventStore.list(dave.id, id)).length === 0) await new Promise(resolve => { setImmediate(resolve) })
  const gone = await openSlot(dave.id)
  await call('DELETE', `/accounts/${dave.id}/voicemails/${gone.id}`)
  t.equal((await call('DELETE', `/accounts/${dave.id}`)).status, 200)
  t.strictSame([await data.eventStore.list(dave.id, id), await data.eventStore.list(dave.id, gone.id)], [[], []])
  t.equal((await call('GET', `/accounts/${dave.id}/voicemails/${gone.id}/events`)).status, 404)
})

import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import { join } from 'node:path'
import t from 'tap'
import { runProgram } from '../../src/commands/program.js'
import { sweep, type Swept } from '../../src/domain/sweeper.js'
import { sweepRegularly } from '../../src/plugins/sweeping.js'
import { sample, startService, type Json, type Service, type Testing } from '../helper.js'

const DAY_MS = 86_400_000
const MINUTE_MS = 60_000
const START_MS = Date.parse('2026-01-02T03:04:05Z')
const audio = await sample('ok/flexisip-voicemail-0.27s.wav')

interface TimedService extends Service { now: { ms: number }, sweepNow: (options?: Partial<Parameters<typeof sweep>[0]>) => Promise<Swept> }

/** A service whose time stands still, and a sweep as its server makes it. */
async function startAt (t: Testing, settings: Record<string, string> = {}): Promise<TimedService> {
  const now = { ms: START_MS }
  const service = await startService(t, { settings, clock: () => now.ms })
  return {
    ...service,
    now,
    sweepNow: async (options = {}) => await sweep({
      ...service.data, retentionMs: 0, retentionReadMs: 0, auditMs: 90 * DAY_MS, graceMs: 0, isReceiving: () => false, ...options
    })
  }
}

async function store ({ openSlot, url }: Service, account: number): Promise<{ id: string, path: string, downloadUrl: string }> {
  const slot = await openSlot(account)
  const response = await fetch(url + slot.path, { method: 'PUT', body: audio })
  const { download_url: downloadUrl }: Json = await response.json()
  return { ...slot, downloadUrl }
}

/** Begins an upload and waits until the service writes it; `finish` sends the rest and resolves with the status. */
async function beginUpload ({ url, dataFolder }: Service, path: string): Promise<() => Promise<number>> {
  const before = (await readdir(join(dataFolder, 'incoming'))).length
  const request = httpRequest(url + path, { method: 'PUT', headers: { 'content-length': audio.length } })
  const answered = once(request, 'response')
  request.write(audio.subarray(0, 100))
  while ((await readdir(join(dataFolder, 'incoming'))).length === before) await new Promise(resolve => { setTimeout(resolve, 5) })
  return async () => {
    request.end(audio.subarray(100))
    const [response] = await answered
    response.resume()
    return response.statusCode
  }
}

async function program (dataFolder: string, clock: () => number, args: string[], env: Record<string, string> = {}): Promise<{ code: number, out: string }> {
  const out: string[] = []
  const code = await runProgram({
    args, env: { DATA_DIR: dataFolder, ...env }, clock, output: { print: line => { out.push(line) }, tell: line => { out.push(line) } }
  })
  return { code, out: out.join('\n') }
}

t.test('an expired slot goes, and its URL is 410 before and after', async t => {
  const service = await startAt(t, { UPLOAD_URL_TTL: '60' })
  const { addUser, openSlot, call, now, sweepNow, url, files } = service
  const { id } = await addUser()
  const early = await openSlot(id)
  now.ms += 30_000
  const late = await openSlot(id)
  const filled = await store(service, id)
  now.ms += 29_999
  t.strictSame(await sweepNow(), { slots: 0, voicemails: 0, deletions: 0 })
  now.ms += 2
  t.strictSame(await sweepNow(), { slots: 1, voicemails: 0, deletions: 0 })
  t.strictSame((await call('GET', `/accounts/${id}/voicemails`)).body.map((each: Json) => each.id), [filled.id, late.id])
  t.match(await call('GET', `/accounts/${id}/voicemails/${early.id}`), { status: 404 })
  const gone = await fetch(url + early.path, { method: 'PUT', body: audio })
  t.match(await gone.json(), { status: 410, code: 'url_expired' }, 'swept already')
  now.ms += 30_000
  t.equal((await fetch(url + late.path, { method: 'PUT', body: audio })).status, 410, 'not swept yet')
  t.equal((await fetch(filled.downloadUrl)).status, 200, 'what is stored outlives its slot')
  t.equal((await files()).length, 1)
  t.match(await call('GET', `/accounts/${id}/voicemails/${early.id}/events`), { status: 404 }, 'nobody deleted it')
})

t.test('an upload under way when its slot expires may finish', async t => {
  const service = await startAt(t, { UPLOAD_URL_TTL: '60', MAX_UPLOAD_SIZE: '60000', UPLOAD_MIN_RATE: '100' })
  const { addUser, openSlot, call, now, dataFolder, files } = service
  const { id } = await addUser()
  const slots = await Promise.all(Array.from({ length: 3 }, async () => await openSlot(id)))
  const [one, two] = slots
  if (one === undefined || two === undefined) throw new Error('no slots')
  const finishOne = await beginUpload(service, one.path)
  const finishTwo = await beginUpload(service, two.path)
  now.ms += 61_000

  t.test('swept by the server, which knows of it', async t => {
    const isReceiving = (voicemail: string): boolean => voicemail !== slots[2]?.id
    t.strictSame(await service.sweepNow({ isReceiving }), { slots: 1, voicemails: 0, deletions: 0 })
    t.equal(await finishOne(), 200)
    t.match(await call('GET', `/accounts/${id}/voicemails/${one.id}`), { body: { status: 'stored', file_size: audio.length } })
  })

  t.test('swept by the command, which leaves what a server may still be receiving', async t => {
    const command = async (): Promise<Json> => JSON.parse((await program(dataFolder, () => now.ms, ['sweep', '--json'], { MAX_UPLOAD_SIZE: '60000', UPLOAD_MIN_RATE: '100' })).out)
    // The slowest sender takes 600 seconds.
    now.ms += 599_000
    t.strictSame(await command(), { slots: 0, voicemails: 0, deletions: 0 })
    t.equal(await finishTwo(), 200)
    const left = await openSlot(id)
    now.ms += 61_000 + 1_200_000
    t.strictSame(await command(), { slots: 1, voicemails: 0, deletions: 0 }, 'later it goes')
    t.match(await call('GET', `/accounts/${id}/voicemails/${left.id}`), { status: 404 })
    t.strictSame((await call('GET', `/accounts/${id}/voicemails`)).body.map(({ status }: Json) => status), ['stored', 'stored'])
    t.equal((await files()).length, 2)
    const unlimited = await openSlot(id)
    now.ms += 365 * DAY_MS
    await program(dataFolder, () => now.ms, ['sweep'], { UPLOAD_MIN_RATE: '0' })
    t.match(await call('GET', `/accounts/${id}/voicemails/${unlimited.id}`), { status: 200 }, 'without a rate it may take for ever')
  })
})

t.test('RETENTION_DAYS deletes by age, RETENTION_DAYS_READ what was read so long ago', async t => {
  const service = await startAt(t, { DOWNLOAD_URL_TTL: String(365 * 86_400) })
  const { addUser, call, now, sweepNow, files } = service
  const { id } = await addUser()
  const read = async (voicemail: string, value = true): Promise<number> => (await call('PATCH', `/accounts/${id}/voicemails/${voicemail}`, { read: value })).status
  const unread = await store(service, id)
  const heard = await store(service, id)
  const heardAgain = await store(service, id)
  await read(heard.id)
  await read(heardAgain.id)
  now.ms += 2 * DAY_MS
  const fresh = await store(service, id)
  await read(fresh.id)
  now.ms += 1
  t.strictSame(await sweepNow(), { slots: 0, voicemails: 0, deletions: 0 }, 'neither unless it is set')
  await read(heardAgain.id, false)
  t.strictSame(await sweepNow({ retentionReadMs: 2 * DAY_MS }), { slots: 0, voicemails: 1, deletions: 0 }, 'what was marked as unread again is not read')
  t.match(await call('GET', `/accounts/${id}/voicemails/${heard.id}`), { status: 404 })
  t.equal((await fetch(heard.downloadUrl)).status, 404)
  t.strictSame((await call('GET', `/accounts/${id}/voicemails/${heard.id}/events`)).body,
    [{ kind: 'deleted', at: new Date(now.ms).toISOString().replace(/\.\d+/, ''), caller: 'retention', address: null }], 'and it is told who did it')
  t.strictSame(await sweepNow({ retentionMs: 2 * DAY_MS, retentionReadMs: 2 * DAY_MS }), { slots: 0, voicemails: 2, deletions: 0 })
  t.strictSame((await call('GET', `/accounts/${id}/voicemails`)).body.map((each: Json) => each.id), [fresh.id])
  t.equal((await fetch(unread.downloadUrl)).status, 404)
  t.match((await call('GET', `/accounts/${id}`)).body.voicemails, { total: 1, unread: 0 })
  t.equal((await files()).length, 1)
})

t.test('the record of deletions goes after AUDIT_DAYS', async t => {
  const service = await startAt(t)
  const { addUser, call, now, sweepNow } = service
  const { id } = await addUser()
  const { id: gone } = await store(service, id)
  const { id: kept, downloadUrl } = await store(service, id)
  await fetch(downloadUrl).then(async response => await response.arrayBuffer())
  await call('DELETE', `/accounts/${id}/voicemails/${gone}`)
  now.ms += 90 * DAY_MS
  t.match(await sweepNow(), { deletions: 0 })
  t.match(await call('GET', `/accounts/${id}/voicemails/${gone}/events`), { status: 200, body: [{ kind: 'deleted' }] })
  now.ms += 1
  t.match(await sweepNow(), { deletions: 1 })
  t.match(await call('GET', `/accounts/${id}/voicemails/${gone}/events`), { status: 404 })
  t.match(await call('GET', `/accounts/${id}/voicemails/${kept}/events`), { status: 200, body: [{ kind: 'listened' }] }, 'of a voicemail that is there all is kept')
})

t.test('many go in bounded batches, a dry run tells the same number and changes nothing, and a signal ends it', async t => {
  const service = await startAt(t, { ACCOUNT_OPEN_SLOTS: '0', UPLOAD_URL_TTL: '60' })
  const { addUser, openSlot, call, now, sweepNow, dataFolder, data, files } = service
  const { id } = await addUser()
  const stored: string[] = []
  for (let n = 0; n < 13; n++) {
    stored.push(...(await Promise.all(Array.from({ length: 10 }, async () => await store(service, id)))).map(each => each.id))
  }
  for (const voicemail of stored.slice(0, 30)) await call('PATCH', `/accounts/${id}/voicemails/${voicemail}`, { read: true })
  for (const voicemail of stored.splice(0, 1)) await call('DELETE', `/accounts/${id}/voicemails/${voicemail}`)
  await Promise.all(Array.from({ length: 250 }, async () => await openSlot(id)))
  now.ms += 400 * DAY_MS

  const settings = { RETENTION_DAYS: '300', RETENTION_DAYS_READ: '100' }
  const rows = async (): Promise<string> => String((await call('GET', `/accounts/${id}/voicemails`)).headers.get('x-total-count'))
  t.equal(await rows(), '379')
  t.strictSame(JSON.parse((await program(dataFolder, () => now.ms, ['sweep', '--dry-run', '--json'], settings)).out), { slots: 250, voicemails: 129, deletions: 1 },
    'what is due twice counts once')
  t.match(await program(dataFolder, () => now.ms, ['sweep', '--dry-run'], settings), { code: 0, out: /^Would remove 250 expired slots and 129 voicemails/ })
  t.strictSame([await rows(), (await files()).length], ['379', 129])

  // All but the last are being received: they do not stand in its way.
  const slots = await data.upkeepStore.expiredSlots(now.ms, -1)
  t.match(await sweepNow({ isReceiving: voicemail => voicemail !== slots.at(-1)?.id }), { slots: 1, deletions: 1 })

  const limits: number[] = []
  const { upkeepStore } = data
  const watched = {
    ...upkeepStore,
    expiredSlots: async (beforeMs: number, limit: number) => {
      limits.push(limit)
      return await upkeepStore.expiredSlots(beforeMs, limit)
    }
  }
  const stop = new AbortController()
  const stopped = await sweep({
    ...data,
    upkeepStore: { ...watched, removeSlots: async ids => { stop.abort(); return await upkeepStore.removeSlots(ids) } },
    retentionMs: DAY_MS,
    retentionReadMs: DAY_MS,
    auditMs: DAY_MS,
    graceMs: 0,
    isReceiving: () => false
  }, { signal: stop.signal })
  t.strictSame(stopped, { slots: 100, voicemails: 0, deletions: 0 }, 'after the signal no further batch begins')
  t.strictSame(await sweepNow({ upkeepStore: watched, retentionMs: DAY_MS, retentionReadMs: DAY_MS, auditMs: DAY_MS }), { slots: 149, voicemails: 129, deletions: 0 })
  t.ok(limits.length >= 3 && limits.every(limit => limit <= 100), 'no batch is larger than 100')
  t.strictSame([await rows(), (await files()).length], ['0', 0])
})

t.test('the server sweeps by itself, goes on after a failure, and closing waits for the sweep that runs', async t => {
  const { app, now, addUser, openSlot, data, log } = await startAt(t)
  const { id } = await addUser()
  await openSlot(id)
  now.ms += 2 * 60 * MINUTE_MS
  t.equal((await data.upkeepStore.expiredSlots(now.ms, -1)).length, 1)
  let runs = 0
  let end = (): void => {}
  let close = async (): Promise<void> => {}
  const third = new Promise<void>(resolve => {
    sweepRegularly(Object.assign(Object.create(app), { addHook: (_name: string, hook: () => Promise<void>) => { close = hook } }), async () => {
      runs += 1
      if (runs === 1) throw new Error('the disk is away')
      if (runs === 3) {
        resolve()
        await new Promise<void>(resolve => { end = resolve })
      }
    }, 1)
  })
  await third
  let isClosed = false
  const closed = close().then(() => { isClosed = true })
  await new Promise(resolve => { setImmediate(resolve) })
  t.notOk(isClosed)
  end()
  await closed
  t.equal(runs, 3)
  t.match(log.join(''), /sweeping failed; it is tried again/)
})

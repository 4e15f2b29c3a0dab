import { cp, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { drizzle } from 'drizzle-orm/better-sqlite3'
import { migrate } from 'drizzle-orm/better-sqlite3/migrator'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { runProgram } from '../../src/commands/program.js'
import { sweep } from '../../src/domain/sweeper.js'
import type { VoicemailRow } from '../../src/stores/tables.js'
import { sample, startService, type Answer, type Json, type Service } from '../helper.js'

/** 4320 bytes, for slots of 5000. */
const audio = await sample('ok/flexisip-voicemail-0.27s.wav')
const WAV = { sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' }

const askSlot = async ({ call }: Service, account: number): Promise<Answer> => await call('POST', `/accounts/${account}/voicemails`, WAV)
const upload = async ({ url }: Service, path: string): Promise<number> => (await fetch(url + path, { method: 'PUT', body: audio })).status
/** What each of these slots may bring. */
const MAX_BYTES = 5000
const pathOf = ({ body }: Answer): string => new URL(body.upload_url).pathname
const statuses = (answers: Answer[]): Record<number, number> =>
  answers.reduce<Record<number, number>>((counts, { status }) => ({ ...counts, [status]: (counts[status] ?? 0) + 1 }), {})

t.test('what an account may hold', async t => {
  let now = Date.parse('2026-01-02T03:04:05Z')
  const service = await startService(t, {
    settings: { MAX_UPLOAD_SIZE: '5000', ACCOUNT_QUOTA_BYTES: '15000', ACCOUNT_OPEN_SLOTS: '20', UPLOAD_URL_TTL: '60' },
    clock: () => now
  })
  const { call, addUser, files, dataFolder } = service
  const quota = async (id: number, change: object): Promise<Answer> => await call('PATCH', `/accounts/${id}/quota`, change)
  const program = async (...args: string[]): Promise<{ code: number, out: string, err: string }> => {
    const out: string[] = []
    const err: string[] = []
    const code = await runProgram({
      args, env: { DATA_DIR: dataFolder }, clock: () => now, output: { print: line => { out.push(line) }, tell: line => { err.push(line) } }
    })
    return { code, out: out.join('\n'), err: err.join('\n') }
  }

  await t.test('open slots reserve their max_upload_size: 507 quota_exceeded, with both sides of the limit and Retry-After', async t => {
    const { id, key } = await addUser()
    const slots = [await askSlot(service, id), await askSlot(service, id), await askSlot(service, id)]
    t.strictSame(statuses(slots), { 201: 3 })
    const refused = await askSlot(service, id)
    t.match(refused, { status: 507, body: { code: 'quota_exceeded', expected: 15_000, found: 20_000 } })
    t.match(refused.headers.get('retry-after'), /^[1-9]\d*$/)
    t.match(await call('POST', `/accounts/${id}/voicemails`, WAV, { 'x-api-key': key }), { status: 507 }, 'for the owner too')
    t.equal((await call('GET', `/accounts/${id}/voicemails`)).body.length, 3, 'and no row is left of it')

    const [first, second] = slots
    if (first === undefined || second === undefined) throw new Error('no slots')
    t.equal(await upload(service, pathOf(first)), 200)
    t.match((await askSlot(service, id)).body, { code: 'quota_exceeded', found: 4320 + 3 * 5000 }, 'what is held counts with its own size')
    t.equal((await call('DELETE', `/accounts/${id}/voicemails/${second.body.id}`)).status, 200)
    t.equal((await askSlot(service, id)).status, 201, 'what is deleted counts no more')
    t.equal((await askSlot(service, id)).status, 507)
    now += 60_000
    t.strictSame(statuses([await askSlot(service, id), await askSlot(service, id), await askSlot(service, id)]), { 201: 2, 507: 1 }, 'expired slots reserve nothing, swept or not')
  })

  await t.test('an upload to a slot that was granted is taken, though the quota has been lowered since', async t => {
    const { id } = await addUser()
    const [kept, other] = [await askSlot(service, id), await askSlot(service, id)]
    t.match(await quota(id, { quota_bytes: 1, quota_messages: 1 }), { status: 200, body: { quota_bytes: 1, quota_messages: 1 } })
    t.strictSame([await upload(service, pathOf(kept)), await upload(service, pathOf(other))], [200, 200])
    t.match((await askSlot(service, id)).body, { code: 'quota_exceeded', expected: 1 })
    t.match((await call('GET', `/accounts/${id}`)).body.voicemails, { total: 2, unread: 2 })
  })

  await t.test('fifty slots asked for at once never pass the limit', async t => {
    const { id } = await addUser()
    const fifty = async (): Promise<Answer[]> => await Promise.all(Array.from({ length: 50 }, async () => await askSlot(service, id)))
    await quota(id, { quota_bytes: 0, quota_messages: 10 })
    t.strictSame(statuses(await fifty()), { 201: 10, 507: 40 }, 'of messages')
    await quota(id, { quota_bytes: 77_777, quota_messages: 0 })
    t.strictSame(statuses(await fifty()), { 201: 5, 507: 45 }, 'of bytes: 15 of 5000 below 77777')
    await quota(id, { quota_bytes: 0 })
    const answers = await fifty()
    t.strictSame(statuses(answers), { 201: 5, 507: 45 }, 'of open slots (ACCOUNT_OPEN_SLOTS)')
    t.match(answers.find(({ status }) => status === 507)?.body, { code: 'quota_exceeded', expected: 20, found: 21 })
    t.equal((await call('GET', `/accounts/${id}/voicemails?limit=500`)).body.length, 20)
  })

  await t.test('a quota is set per account by the admin, and null goes back to the settings', async t => {
    const { id, key } = await addUser()
    t.strictSame((await call('GET', `/accounts/${id}/quota`)).body, { quota_bytes: null, quota_messages: null, stored_bytes: 0, stored_messages: 0 })
    t.strictSame((await quota(id, { quota_messages: 1 })).body, { quota_bytes: null, quota_messages: 1, stored_bytes: 0, stored_messages: 0 })
    const slot = await askSlot(service, id)
    t.match(await askSlot(service, id), { status: 507, body: { expected: 1, found: 2 } })
    await upload(service, pathOf(slot))
    t.match(await askSlot(service, id), { status: 507, body: { expected: 1, found: 2 } }, 'a stored one counts like an open one')
    t.strictSame((await quota(id, {})).body, { quota_bytes: null, quota_messages: 1, stored_bytes: 4320, stored_messages: 1 }, 'an empty change changes nothing')
    await quota(id, { quota_messages: null })
    t.equal((await askSlot(service, id)).status, 201)
    for (const wrong of [{ quota_bytes: -1 }, { quota_bytes: '5' }, { quota_messages: 1.5 }]) {
      t.match(await quota(id, wrong), { status: 422, body: { code: 'validation_failed' } }, JSON.stringify(wrong))
    }
    for (const method of ['GET', 'PATCH']) {
      t.equal((await call(method, `/accounts/${id}/quota`, method === 'GET' ? undefined : {}, { 'x-api-key': key })).status, 403, `${method} is not for the owner`)
    }
    t.equal((await quota(999, { quota_bytes: 1 })).status, 404)
  })

  await t.test('the command line shows and sets quotas', async t => {
    const { id } = await addUser('sip:quota@sip.example.org')
    t.strictSame(JSON.parse((await program('account', 'quota', 'quota@sip.example.org', '--messages', '1', '--bytes', '0', '--json')).out),
      { quota_bytes: 0, quota_messages: 1, stored_bytes: 0, stored_messages: 0 })
    await askSlot(service, id)
    t.equal((await askSlot(service, id)).status, 507, 'the server beside it goes by it at once')
    t.match(await program('account', 'quota', String(id)), { code: 0, out: /bytes +0 +no limit\nmessages +0 +1$/ })
    t.match(await program('account', 'quota', String(id), '--messages', 'default'), { code: 0, out: /messages +0 +default$/ })
    t.equal((await askSlot(service, id)).status, 201)
    for (const wrong of ['-1', '1.5', 'none', '99999999999999999999']) t.match(await program('account', 'quota', String(id), `--bytes=${wrong}`), { code: 2, out: '' }, wrong)
    t.match(await program('account', 'quota', '999'), { code: 1, err: /no such account/ })
  })

  const rowsOf = async (account: number): Promise<VoicemailRow[]> =>
    (await service.data.voicemailStore.list(account, {}, { before: undefined, limit: 500 })).voicemails
  async function listsWhatIsThere (t: Test, account: number): Promise<void> {
    const { body, headers } = await call('GET', `/accounts/${account}/voicemails?limit=500`)
    const rows = await rowsOf(account)
    t.strictSame(body.map((one: Json) => [one.id, one.status, one.file_size, one.read_at === null, one.failure?.code]), rows.map(row =>
      [row.id, row.uploadedAtMs === null ? 'pending' : 'stored', row.fileBytes, row.readAtMs === null, row.failureCode ?? undefined]))
    t.strictSame(['x-total-count', 'x-unread-count'].map(name => headers.get(name)), [rows, rows.filter(row => row.uploadedAtMs !== null && row.readAtMs === null)].map(({ length }) => String(length)))
  }

  await t.test('whatever happens, the sums of an account are those of its voicemails, and its list shows it', async t => {
    const step = fc.record({ act: fc.constantFrom('open', 'upload', 'upload', 'spoil', 'read', 'unread', 'delete', 'sweep'), at: fc.nat(20), who: fc.nat(1) })
    await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async steps => {
      const accounts = [(await addUser()).id, (await addUser()).id]
      for (const account of accounts) await quota(account, { quota_bytes: 0 })
      const known: Array<{ account: number, id: string, path: string }> = []
      for (const { act, at, who } of steps) {
        const one = known[at % Math.max(known.length, 1)]
        if (act === 'open' || one === undefined) {
          const account = accounts[who] ?? 0
          known.push({ account, ...await service.openSlot(account) })
        } else if (act === 'upload') await upload(service, one.path)
        else if (act === 'spoil') await fetch(service.url + one.path, { method: 'PUT', body: 'no audio' })
        else if (act === 'delete') await call('DELETE', `/accounts/${one.account}/voicemails/${one.id}`)
        else if (act === 'sweep') {
          now += 30_000
          await sweep({ ...service.data, retentionMs: 50_000, retentionReadMs: 20_000, auditMs: 1, graceMs: 0, isReceiving: () => false })
        } else await call('PATCH', `/accounts/${one.account}/voicemails/${one.id}`, { read: act === 'read' })
        // What has been listed before must not be seen again.
        for (const account of accounts) await listsWhatIsThere(t, account)
      }
      for (const account of accounts) {
        const stored: Json[] = (await call('GET', `/accounts/${account}/voicemails?status=stored&limit=500`)).body
        const row = await service.data.accountStore.find(account)
        const { body: open } = await call('GET', `/accounts/${account}/voicemails?status=pending&limit=500`)
        t.strictSame([row?.storedBytes, row?.storedMessages, row?.unreadMessages, row?.pendingBytes, row?.pendingMessages], [
          stored.reduce((sum, { file_size: bytes }) => sum + bytes, 0), stored.length, stored.filter(({ read_at: readAt }) => readAt === null).length,
          open.length * MAX_BYTES, open.length
        ], JSON.stringify(steps))
      }
      const isOpen = (row: VoicemailRow): boolean => row.uploadedAtMs === null && row.expiresAtMs > now
      const rows = (await Promise.all((await call('GET', '/accounts?limit=500')).body.map(async ({ id }: Json) => await rowsOf(id)))).flat()
      t.strictSame(await service.data.voicemailStore.openSlots(now), { count: rows.filter(isOpen).length, bytes: rows.filter(isOpen).length * MAX_BYTES }, 'and those of all slots are, too')
      for (const account of accounts) t.equal((await call('DELETE', `/accounts/${account}`)).status, 200)
    }), { numRuns: 8 })
  })

  t.equal((await files()).length, (await call('GET', '/accounts?limit=500')).body.reduce((sum: number, { voicemails }: Json) => sum + voicemails.total, 0),
    'on the disk is what the accounts hold, and nothing else')
})

t.test('MIN_FREE_DISK is kept, counting what open slots of all accounts may still need: 507 insufficient_storage', async t => {
  let now = Date.parse('2026-01-02T03:04:05Z')
  let free = 1_000_000
  const service = await startService(t, {
    settings: { MAX_UPLOAD_SIZE: '5000', MIN_FREE_DISK: '100000', UPLOAD_URL_TTL: '60' },
    clock: () => now,
    meddle: ({ audioStore }) => { audioStore.freeBytes = async () => free }
  })
  const { call, addUser } = service
  const [bob, carol] = [(await addUser()).id, (await addUser()).id]
  free = 100_000 + 3 * 5000 + 4999
  const granted = [await askSlot(service, bob), await askSlot(service, carol), await askSlot(service, bob)]
  t.strictSame(statuses(granted), { 201: 3 })
  const refused = await askSlot(service, carol)
  t.match(refused, { status: 507, body: { code: 'insufficient_storage' } })
  t.match(refused.headers.get('retry-after'), /^[1-9]\d*$/)
  t.equal((await call('GET', '/health/ready')).status, 200, 'what was promised fits')
  free -= 5000
  t.match(await call('GET', '/health/ready'), { status: 503, body: { code: 'unavailable', detail: /room/ } })

  free = 0
  const [first] = granted
  if (first === undefined) throw new Error('no slot')
  t.equal(await upload(service, pathOf(first)), 200, 'an upload to a slot that was granted is refused by the disk alone')
  free = 100_000 + 2 * 5000
  t.equal((await askSlot(service, bob)).status, 507, 'two slots are still open')
  now += 60_000
  t.strictSame(statuses(await Promise.all(Array.from({ length: 50 }, async () => await askSlot(service, bob)))), { 201: 2, 507: 48 }, 'expired ones need nothing, and fifty at once do not pass the floor')
})

t.test('a database of the first version gets its sums with the migration', async t => {
  const folder = t.testdir()
  const first = join(folder, 'migrations')
  await cp('drizzle', first, { recursive: true })
  await writeFile(join(first, 'meta', '_journal.json'), JSON.stringify({
    version: '7', dialect: 'sqlite', entries: [{ idx: 0, version: '6', when: 1795540786405, tag: '0000_first', breakpoints: true }]
  }))
  const dataFolder = join(folder, 'data')
  await mkdir(dataFolder)
  const sqlite = new Sqlite(join(dataFolder, 'voicemaild.sqlite'))
  migrate(drizzle(sqlite), { migrationsFolder: first })
  sqlite.exec(`
    INSERT INTO accounts (sip_uri, address_key, username, domain, created_at_ms) VALUES ('sip:bob@a.example', 'bob@a.example', 'bob', 'a.example', 0), ('sip:carol@a.example', 'carol@a.example', 'carol', 'a.example', 0);
    INSERT INTO voicemails (id, account_id, sip_from, content_type, max_upload_bytes, created_at_ms, expires_at_ms, uploaded_at_ms, read_at_ms, file_name, file_bytes, duration_ms, sha256) VALUES
      ('01890000-0000-7000-8000-000000000001', 1, 'sip:a@b', 'audio/wav', 5000, 0, 1000, 500, NULL, 'aaaaaaaaaaaaaaaaaaaaaaaa', 100, 1, ''),
      ('01890000-0000-7000-8000-000000000002', 1, 'sip:a@b', 'audio/wav', 5000, 0, 1000, 500, 600, 'bbbbbbbbbbbbbbbbbbbbbbbb', 20, 1, ''),
      ('01890000-0000-7000-8000-000000000003', 1, 'sip:a@b', 'audio/wav', 5000, 0, 1000, NULL, NULL, NULL, NULL, NULL, NULL)`)
  sqlite.close()
  const { data, call } = await startService(t, { settings: { DATA_DIR: dataFolder } })
  t.match(await data.accountStore.find(1), { storedBytes: 120, storedMessages: 2, unreadMessages: 1, quotaBytes: null, quotaMessages: null })
  t.match(await data.accountStore.find(2), { storedBytes: 0, storedMessages: 0, unreadMessages: 0 })
  await call('DELETE', '/accounts/1/voicemails/01890000-0000-7000-8000-000000000001')
  t.match(await data.accountStore.find(1), { storedBytes: 20, storedMessages: 1, unreadMessages: 0 })
})

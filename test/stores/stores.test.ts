import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { sql } from 'drizzle-orm'
import t, { type Test } from 'tap'
import { createAccountStore, type NewAccount } from '../../src/stores/account-store.js'
import { openDatabase, type Database, type DatabaseOptions } from '../../src/stores/database.js'
import { lockFolder } from '../../src/stores/folder-lock.js'
import { createVoicemailStore, type NewSlot } from '../../src/stores/voicemail-store.js'

const source = (name: string): string => JSON.stringify(new URL(`../../src/stores/${name}.ts`, import.meta.url).href)

/** Another process with a few lines of TypeScript. */
function inProcess (code: string) {
  return spawn(process.execPath, ['--import=tsx', '--input-type=module', '-e', code], { stdio: ['pipe', 'pipe', 'inherit'] })
}

function open (t: Test, dataFolder = t.testdir(), durability: DatabaseOptions['durability'] = 'relaxed') {
  const database = openDatabase(dataFolder, { durability })
  t.teardown(database.close)
  return { dataFolder, database, accountStore: createAccountStore(database), voicemailStore: createVoicemailStore(database) }
}

const pragma = ({ read }: Database, name: string): unknown => Object.values(read.get<Record<string, unknown>>(sql.raw(`PRAGMA ${name}`)))[0]
const account = (username: string): NewAccount =>
  ({ sipUri: `sip:${username}@example.org`, addressKey: `${username}@example.org`, username, domain: 'example.org', createdAtMs: 1 })
const slot = (accountId: number, id: string, changes: Partial<NewSlot> = {}): NewSlot =>
  ({ id, accountId, sipFrom: 'sip:alice@example.org', contentType: 'audio/wav', maxUploadBytes: 1000, createdAtMs: 1, expiresAtMs: 5000, ...changes })
const audio = (fileName: string) => ({ fileName, fileBytes: 10, durationMs: 20, sha256: 'ab' })
const DELETION = { caller: 'test', address: null, atMs: 1 }
const ids = (rows: Array<{ id: string }>): string => rows.map(({ id }) => id).join('')

t.test('a database is made with every table, for its owner alone, in WAL, with the durability that was asked for', async t => {
  for (const [durability, synchronous] of [['full', 2], ['relaxed', 1]] as const) {
    await t.test(durability, async t => {
      const { dataFolder, database, accountStore } = open(t, t.testdir(), durability)
      t.equal(pragma(database, 'journal_mode'), 'wal')
      t.equal(pragma(database, 'synchronous'), synchronous)
      t.equal(pragma(database, 'foreign_keys'), 1)
      await accountStore.add(account('bob'))
      for (const name of ['voicemaild.sqlite', 'voicemaild.sqlite-wal', 'voicemaild.sqlite-shm']) {
        t.equal(statSync(join(dataFolder, name)).mode & 0o777, 0o600, name)
      }
      database.probe()
    })
  }
})

t.test('what was written is there after the database is closed and opened again, and while another has it open', async t => {
  const first = open(t)
  await first.accountStore.add(account('bob'))
  const beside = open(t, first.dataFolder)
  t.match(await beside.accountStore.findByAddressKey('bob@example.org'), { id: 1 })
  await Promise.all([first, beside].map(async ({ accountStore }, index) => await accountStore.add(account(`user${index}`))))
  await first.database.close()
  await beside.database.close()
  t.throws(() => statSync(join(first.dataFolder, 'voicemaild.sqlite-wal')), { code: 'ENOENT' }, 'the log is folded into the database')
  const { accountStore } = open(t, first.dataFolder)
  t.equal(await accountStore.count(), 3)
})

t.test('closing waits for what was to be written; after it nothing is, and closing again is nothing', async t => {
  const { dataFolder, database, accountStore, voicemailStore } = open(t)
  const added = accountStore.add(account('bob'))
  const refused = t.rejects(voicemailStore.addSlot(slot(99, 'a'), () => {}), { code: 'not_found' })
  await database.close()
  t.match(await added, { username: 'bob' })
  await refused
  await t.rejects(accountStore.add(account('alice')))
  await t.rejects(accountStore.find(1))
  t.throws(() => { database.probe() })
  await database.close()
  t.equal(await open(t, dataFolder).accountStore.count(), 1)
})

t.test('two processes that open an empty folder at once both find the tables', async t => {
  const dataFolder = t.testdir()
  const code = `
    const { openDatabase } = await import(${source('database')})
    process.stdout.write('loaded')
    for await (const _ of process.stdin);
    const database = openDatabase(${JSON.stringify(dataFolder)}, { durability: 'full' })
    await database.close()
    process.stdout.write(' opened')
  `
  const children = [inProcess(code), inProcess(code)]
  const said = children.map(({ stdout }) => { stdout.setEncoding('utf8'); return stdout })
  const loaded = await Promise.all(said.map(async stdout => (await once(stdout, 'data'))[0]))
  t.strictSame(loaded, ['loaded', 'loaded'])
  for (const { stdin } of children) stdin.end()
  t.strictSame(await Promise.all(said.map(async stdout => await text(stdout))), [' opened', ' opened'])
  t.equal(await open(t, dataFolder).accountStore.count(), 0)
})

t.test('what is no database is refused and left alone', async t => {
  const dataFolder = t.testdir({ 'voicemaild.sqlite': '' })
  const path = join(dataFolder, 'voicemaild.sqlite')
  writeFileSync(path, 'The minutes of the meeting of October the ninth.\n'.repeat(100))
  const before = readFileSync(path)
  t.throws(() => openDatabase(dataFolder, { durability: 'full' }), { code: 'SQLITE_NOTADB' })
  t.ok(readFileSync(path).equals(before))
  t.throws(() => openDatabase(join(dataFolder, 'nowhere'), { durability: 'full' }), { code: 'ENOENT' })
})

t.test('a folder has one server: a lock is refused to everybody else, and ends with its process, however that ends', async t => {
  const dataFolder = t.testdir()
  const unlock = lockFolder(dataFolder)
  t.type(unlock, 'function')
  t.equal(lockFolder(dataFolder), undefined, 'in the same process too')
  t.type(open(t, dataFolder).accountStore, 'object', 'a command may work beside it')

  const child = inProcess(`
    const { lockFolder } = await import(${source('folder-lock')})
    process.stdout.write(String(lockFolder(${JSON.stringify(dataFolder)})))
    process.stdin.once('data', () => { process.stdout.write(typeof lockFolder(${JSON.stringify(dataFolder)})) })
  `)
  child.stdout.setEncoding('utf8')
  t.strictSame(await once(child.stdout, 'data'), ['undefined'], 'in another process')
  unlock?.()
  child.stdin.write('again')
  t.strictSame(await once(child.stdout, 'data'), ['function'], 'and given back it can be taken')
  t.equal(lockFolder(dataFolder), undefined)
  child.kill('SIGKILL')
  await once(child, 'exit')
  const taken = lockFolder(dataFolder)
  t.type(taken, 'function', 'a dead process has no lock')
  taken?.()
  t.throws(() => lockFolder(join(dataFolder, 'nowhere')), Error)
})

t.test('an address has one account, even if two ask for it at once, and an id is never given twice', async t => {
  const { accountStore } = open(t)
  const [first, second] = await Promise.all([accountStore.add(account('bob')), accountStore.add({ ...account('bob'), sipUri: 'sip:BOB@example.org' })])
  t.match(first, { id: 1, sipUri: 'sip:bob@example.org', email: null, displayName: null, storedMessages: 0, unreadMessages: 0 })
  t.equal(second, undefined)
  const alice = await accountStore.add({ ...account('alice'), email: 'a@example.org', displayName: 'Alice' })
  t.match(alice, { username: 'alice', email: 'a@example.org', displayName: 'Alice' })
  const last = alice?.id ?? 0
  t.strictSame(await accountStore.remove(last), [])
  t.equal(await accountStore.remove(last), undefined)
  t.equal(await accountStore.find(last), undefined)
  const { id: next = 0 } = await accountStore.add(account('carol')) ?? {}
  t.ok(next > last)
  t.strictSame((await accountStore.list({ before: next + 1, limit: 10 })).map(({ id }) => id), [next, 1])
  t.strictSame((await accountStore.list({ before: next, limit: 10 })).map(({ id }) => id), [1])
  t.strictSame((await accountStore.list({ before: next + 1, limit: 1 })).map(({ id }) => id), [next])
  t.equal(await accountStore.count(), 2)
})

t.test('an account goes with its keys and voicemails, its files are noted, and those of others stay', async t => {
  const { database, accountStore, voicemailStore } = open(t)
  for (const name of ['bob', 'eve']) await accountStore.add(account(name))
  for (const accountId of [1, 2]) {
    await accountStore.addKey({ accountId, name: 'phone', role: 'user', sha256: `key${accountId}`, createdAtMs: 1 })
    for (const id of ['a', 'b', 'c']) await voicemailStore.addSlot(slot(accountId, `${id}${accountId}`), () => {})
    for (const id of ['a', 'b']) await voicemailStore.markStored(`${id}${accountId}`, audio(`${id}${accountId}`), 1)
    await voicemailStore.markRead(`a${accountId}`, 2)
  }
  t.match(await accountStore.find(1), { storedMessages: 2, unreadMessages: 1 }, 'an open slot is no voicemail yet')
  t.strictSame((await accountStore.remove(1))?.sort(), ['a1', 'b1'])
  t.strictSame((await voicemailStore.pendingRemovals()).sort(), ['a1', 'b1'])
  t.equal(await accountStore.findKey('key1', 0), undefined)
  t.equal(await voicemailStore.find('c1'), undefined)
  t.match(await accountStore.find(2), { storedMessages: 2, unreadMessages: 1 })
  t.match(await accountStore.findKey('key2', 0), { accountId: 2 })
  t.equal(await accountStore.addKey({ accountId: 1, name: 'late', role: 'user', sha256: 'late', createdAtMs: 1 }), undefined)
  await t.rejects(voicemailStore.addSlot(slot(1, 'late'), () => {}), { code: 'not_found' })
  t.strictSame(database.read.all(sql`PRAGMA foreign_key_check`), [])
})

t.test('a key opens until the moment at which it ends, or until it is taken back by whose it is', async t => {
  const { accountStore } = open(t)
  for (const name of ['bob', 'eve']) await accountStore.add(account(name))
  const key = async (sha256: string, accountId: number | null, expiresAtMs: number | null = null) =>
    await accountStore.addKey({ accountId, name: sha256, role: accountId === null ? 'admin' : 'user', sha256, createdAtMs: 1, expiresAtMs })
  for (const [sha256, accountId, expiresAtMs] of [['admin', null], ['bob', 1], ['short', 1, 1000], ['eve', 2]] as const) await key(sha256, accountId, expiresAtMs)
  t.match(await accountStore.findKey('short', 999), { id: 3, lastUsedAtMs: null })
  t.equal(await accountStore.findKey('short', 1000), undefined)
  t.match(await accountStore.findKey('admin', Number.MAX_SAFE_INTEGER), { accountId: null, role: 'admin' })
  t.equal(await accountStore.findKey('ADMIN', 0), undefined)
  await accountStore.noteKeyUse(2, 77)
  t.match(await accountStore.listKeys(1), [{ id: 2, lastUsedAtMs: 77 }, { id: 3, lastUsedAtMs: null }])
  t.strictSame((await accountStore.listKeys(undefined)).map(({ id }) => id), [1, 2, 3, 4])
  await t.rejects(key('bob', 2), { code: 'SQLITE_CONSTRAINT_UNIQUE' })
  t.equal(await accountStore.removeKey(2, 2), false, 'not that account\'s')
  t.equal(await accountStore.removeKey(1, 1), false)
  t.equal(await accountStore.removeKey(2, 1), true)
  t.equal(await accountStore.removeKey(2, 1), false)
  t.equal(await accountStore.removeKey(4, undefined), true)
  t.equal(await accountStore.findKey('bob', 0), undefined)
})

t.test('a slot is filled once, and what ended an attempt is kept only until then', async t => {
  const { accountStore, voicemailStore } = open(t)
  await accountStore.add(account('bob'))
  t.match(await voicemailStore.addSlot(slot(1, 'a'), () => {}), { id: 'a', uploadedAtMs: null, fileName: null, failureCode: null })
  await t.rejects(voicemailStore.addSlot(slot(1, 'a'), () => {}), { code: 'SQLITE_CONSTRAINT_PRIMARYKEY' })
  const failure = { failureCode: 'unsupported_audio', failureDetail: 'No.', failureAtMs: 3 } as const
  await voicemailStore.noteFailure('a', failure)
  t.match(await voicemailStore.find('a'), failure)
  t.equal(await voicemailStore.markRead('a', 4), undefined, 'nobody can have heard it')

  const ends = await Promise.all([voicemailStore.markStored('a', audio('one'), 5), voicemailStore.markStored('a', audio('two'), 6)])
  const none = { failureCode: null, failureDetail: null, failureAtMs: null }
  t.match(ends, [{ ...audio('one'), uploadedAtMs: 5, readAtMs: null, ...none }, undefined])
  await voicemailStore.noteFailure('a', failure)
  t.match(await voicemailStore.find('a'), none)
  t.equal(await voicemailStore.markStored('nobody', audio('three'), 5), undefined)
  t.strictSame(await Promise.all(['one', 'two', 'three'].map(voicemailStore.isFileKnown)), [true, false, false])
  await voicemailStore.addSlot(slot(1, 'b'), () => {})
  await t.rejects(voicemailStore.markStored('b', audio('one'), 7), { code: 'SQLITE_CONSTRAINT_UNIQUE' }, 'a file has one row')

  t.match(await voicemailStore.markRead('a', 8), { readAtMs: 8 })
  t.match(await voicemailStore.markRead('a', 9), { readAtMs: 8 }, 'the first moment stays')
  t.match(await voicemailStore.markRead('a', null), { readAtMs: null })
  t.match(await voicemailStore.markRead('a', 0), { readAtMs: 0 })
})

t.test('a row that is removed leaves the note of its file, until that is gone', async t => {
  const { accountStore, voicemailStore } = open(t)
  for (const name of ['bob', 'eve']) await accountStore.add(account(name))
  for (const id of ['a', 'b', 'c']) await voicemailStore.addSlot(slot(1, id), () => {})
  for (const id of ['a', 'b']) await voicemailStore.markStored(id, audio(`file-${id}`), 1)
  t.equal(await voicemailStore.remove(2, 'a', DELETION), undefined, 'not that account\'s')
  t.equal(await voicemailStore.findOf(2, 'a'), undefined)
  t.match(await voicemailStore.findOf(1, 'a'), { id: 'a' })
  const [first, second] = await Promise.all([voicemailStore.remove(1, 'a', DELETION), voicemailStore.remove(1, 'a', DELETION)])
  t.match(first, { id: 'a', fileName: 'file-a' })
  t.equal(second, undefined)
  t.match(await voicemailStore.remove(1, 'c', DELETION), { fileName: null })
  t.strictSame(await voicemailStore.pendingRemovals(), ['file-a'])
  await voicemailStore.remove(1, 'b', DELETION)
  await voicemailStore.forgetRemovals(['file-a', 'nothing'])
  t.strictSame(await voicemailStore.pendingRemovals(), ['file-b'])
})

t.test('a list is filtered, counted and paged, newest first, for one account', async t => {
  const { accountStore, voicemailStore } = open(t)
  for (const name of ['bob', 'eve']) await accountStore.add(account(name))
  for (const id of 'abcdef') await voicemailStore.addSlot(slot(1, id), () => {})
  await voicemailStore.addSlot(slot(2, '0'), () => {})
  for (const id of 'bcde') await voicemailStore.markStored(id, audio(id), 1)
  await voicemailStore.markRead('c', 2)
  for (const [filter, expected] of [
    [{}, 'fedcba'], [{ status: 'pending' }, 'fa'], [{ status: 'stored' }, 'edcb'], [{ unread: true }, 'edb'], [{ unread: false }, 'c'],
    [{ status: 'pending', unread: true }, ''], [{ status: 'stored', unread: true }, 'edb'], [{}, 'fedcba']
  ] as const) {
    const all = await voicemailStore.list(1, filter, { before: undefined, limit: 100 })
    t.same({ ...all, voicemails: ids(all.voicemails) }, { voicemails: expected, total: expected.length, unread: 3 }, JSON.stringify(filter))
    let paged = ''
    for (let page = all.voicemails; page.length > 0;) {
      const found = await voicemailStore.list(1, filter, { before: paged.at(-1), limit: 2 })
      t.equal(found.total, expected.length, 'the total is that before paging')
      page = found.voicemails
      paged += ids(page)
    }
    t.equal(paged, expected)
  }
  t.same(await voicemailStore.list(3, {}, { before: undefined, limit: 100 }), { voicemails: [], total: 0, unread: 0 })
})

t.test('only slots that can still be filled count as open', async t => {
  const { accountStore, voicemailStore } = open(t)
  await accountStore.add(account('bob'))
  t.strictSame(await voicemailStore.openSlots(0), { count: 0, bytes: 0 })
  for (const [id, expiresAtMs, maxUploadBytes] of [['a', 5000, 2 ** 31 - 1], ['b', 6000, 2 ** 31 - 1], ['c', 6000, 7]] as const) {
    await voicemailStore.addSlot(slot(1, id, { expiresAtMs, maxUploadBytes }), () => {})
  }
  await voicemailStore.markStored('c', audio('c'), 1)
  t.strictSame(await voicemailStore.openSlots(4999), { count: 2, bytes: 2 ** 32 - 2 })
  t.strictSame(await voicemailStore.openSlots(5000), { count: 1, bytes: 2 ** 31 - 1 })
  t.strictSame(await voicemailStore.openSlots(6000), { count: 0, bytes: 0 })
})

t.test('a full disk is told where a slot is opened, and the next one is opened when there is room again', async t => {
  const { database, accountStore, voicemailStore } = open(t)
  await accountStore.add(account('bob'))
  database.read.get(sql.raw(`PRAGMA max_page_count = ${Number(pragma(database, 'page_count')) + 2}`))
  const sipFrom = `sip:${'a'.repeat(20_000)}@example.org`
  await t.rejects(voicemailStore.addSlot(slot(1, 'a', { sipFrom }), () => {}), { code: 'insufficient_storage' })
  t.equal(await voicemailStore.find('a'), undefined)
  database.read.get(sql.raw('PRAGMA max_page_count = 1000000'))
  t.match(await voicemailStore.addSlot(slot(1, 'a', { sipFrom }), () => {}), { id: 'a', sipFrom })
})

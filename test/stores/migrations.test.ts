import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { drizzle } from 'drizzle-orm/better-sqlite3'
import { migrate } from 'drizzle-orm/better-sqlite3/migrator'
import t, { type Test } from 'tap'
import { migrationsFolder } from '../../src/installation.js'
import { createAccountStore } from '../../src/stores/account-store.js'
import { openDatabase } from '../../src/stores/database.js'
import { createEventStore } from '../../src/stores/event-store.js'
import { createVoicemailStore } from '../../src/stores/voicemail-store.js'
import { startProgram } from '../process.js'

interface Journal { entries: Array<{ idx: number, when: number, tag: string }> }

const journal: Journal = JSON.parse(readFileSync(join(migrationsFolder(), 'meta', '_journal.json'), 'utf8'))
const LATEST = journal.entries.length

/** Migrations up to a step, and perhaps one more, as another version of the program has them. */
function migrationsOf (t: Test, steps: number, more?: string): string {
  const folder = join(t.testdirName, `migrations-${steps}${more === undefined ? '' : '-and-more'}`)
  mkdirSync(join(folder, 'meta'), { recursive: true })
  const entries = journal.entries.slice(0, steps)
  for (const { tag } of entries) cpSync(join(migrationsFolder(), `${tag}.sql`), join(folder, `${tag}.sql`))
  if (more !== undefined) {
    entries.push({ ...journal.entries[0], idx: steps, when: (entries.at(-1)?.when ?? 0) + 1000, tag: 'more' })
    writeFileSync(join(folder, 'more.sql'), more)
  }
  writeFileSync(join(folder, 'meta', '_journal.json'), JSON.stringify({ ...journal, entries }))
  return folder
}

const ROWS = `
  INSERT INTO accounts (id, sip_uri, address_key, username, domain, created_at_ms) VALUES (1, 'sip:bob@example.org', 'bob@example.org', 'bob', 'example.org', 1), (2, 'sip:eve@example.org', 'eve@example.org', 'eve', 'example.org', 1);
  INSERT INTO api_keys (account_id, name, role, sha256, created_at_ms) VALUES (1, 'phone', 'user', 'abcd', 1);
  INSERT INTO removals VALUES ('gone');
  INSERT INTO voicemails (id, account_id, sip_from, content_type, max_upload_bytes, created_at_ms, expires_at_ms) VALUES ('open', 1, 'sip:a@example.org', 'audio/wav', 1000, 1, 5000);
  INSERT INTO voicemails (id, account_id, sip_from, content_type, max_upload_bytes, created_at_ms, expires_at_ms) VALUES ('new', 1, 'sip:a@example.org', 'audio/wav', 1000, 1, 5000), ('read', 1, 'sip:a@example.org', 'audio/wav', 1000, 1, 5000);
  UPDATE voicemails SET uploaded_at_ms = 2, file_name = 'new-file', file_bytes = 10, duration_ms = 20, sha256 = 'ab' WHERE id = 'new';
  UPDATE voicemails SET uploaded_at_ms = 3, file_name = 'read-file', file_bytes = 5, duration_ms = 20, sha256 = 'cd' WHERE id = 'read';
  UPDATE voicemails SET read_at_ms = 4 WHERE id = 'read';
`

/** A data folder as a program with so many migrations left it. */
function dataOf (t: Test, steps: number, more?: string): string {
  const dataFolder = join(t.testdir(), 'data')
  mkdirSync(dataFolder)
  const sqlite = new Sqlite(join(dataFolder, 'voicemaild.sqlite'))
  sqlite.pragma('journal_mode = WAL')
  migrate(drizzle(sqlite), { migrationsFolder: migrationsOf(t, steps, more) })
  sqlite.exec(ROWS)
  sqlite.close()
  return dataFolder
}

/** Rows of a database, opened for reading. */
function read<Row> (path: string, query: string): Row[] {
  const sqlite = new Sqlite(path, { readonly: true })
  try {
    return sqlite.prepare<[], Row>(query).all()
  } finally {
    sqlite.close()
  }
}

const countSteps = (path: string): number => read(path, 'SELECT * FROM __drizzle_migrations').length
const schemaOf = (path: string): unknown[] => read(path, "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND name NOT LIKE '__drizzle%' ORDER BY type, name")

for (const { idx, tag } of journal.entries) {
  const steps = idx + 1
  t.test(`a database as it was after ${tag} is brought to today's schema with everything in it`, async t => {
    const dataFolder = dataOf(t, steps)
    const path = join(dataFolder, 'voicemaild.sqlite')
    const before = { schema: schemaOf(path), voicemails: read(path, 'SELECT * FROM voicemails') }
    const database = openDatabase(dataFolder, { durability: 'full' })
    t.teardown(database.close)
    const accountStore = createAccountStore(database)
    const voicemailStore = createVoicemailStore(database)
    t.equal(countSteps(path), LATEST)
    t.strictSame(read(path, 'PRAGMA foreign_key_check'), [])
    t.strictSame(read(path, 'PRAGMA integrity_check'), [{ integrity_check: 'ok' }])

    t.match(await accountStore.findByAddressKey('bob@example.org'), { id: 1, storedBytes: 15, storedMessages: 2, unreadMessages: 1, pendingBytes: 1000, pendingMessages: 1 })
    t.match(await accountStore.find(2), { storedBytes: 0, storedMessages: 0, unreadMessages: 0, pendingBytes: 0 })
    t.match(await accountStore.listKeys(1), [{ name: 'phone' }])
    t.match(await voicemailStore.openSlots(1), { count: 1 })
    t.match(await voicemailStore.find('new'), { fileName: 'new-file', fileBytes: 10, sha256: 'ab', readAtMs: null })
    t.match(await voicemailStore.find('read'), { fileName: 'read-file', readAtMs: 4 })
    t.strictSame(await createEventStore(database).list(1, 'new'), [])

    const copies = readdirSync(dataFolder).filter(name => name.includes('.schema-'))
    if (steps === LATEST) {
      t.strictSame(copies, [], 'nothing had to be done')
      return
    }
    t.strictSame(copies, [`voicemaild.sqlite.schema-${steps}`], 'a copy of it as it was is beside it')
    const copy = join(dataFolder, copies[0] ?? '')
    t.equal(statSync(copy).mode & 0o777, 0o600)
    t.strictSame({ schema: schemaOf(copy), voicemails: read(copy, 'SELECT * FROM voicemails') }, before)
    t.equal(countSteps(copy), steps, 'which the older program opens')

    const { mtimeMs } = statSync(copy)
    const again = openDatabase(dataFolder, { durability: 'full' })
    await again.close()
    t.equal(statSync(copy).mtimeMs, mtimeMs, 'and it is made once')
  })
}

t.test('every way to the newest schema ends at the same one', async t => {
  const schemas: string[] = []
  for (const steps of [0, ...journal.entries.map(({ idx }) => idx + 1)]) {
    await t.test(`from ${steps}`, async t => {
      const dataFolder = steps === 0 ? t.testdir() : dataOf(t, steps)
      await openDatabase(dataFolder, { durability: 'relaxed' }).close()
      schemas.push(JSON.stringify(schemaOf(join(dataFolder, 'voicemaild.sqlite'))))
    })
  }
  t.equal(schemas.length, LATEST + 1)
  t.equal(new Set(schemas).size, 1)
})

t.test('a migration that was released stays as it is', async t => {
  const sha256 = (tag: string): string => createHash('sha256').update(readFileSync(join(migrationsFolder(), `${tag}.sql`))).digest('hex').slice(0, 16)
  t.strictSame(Object.fromEntries(journal.entries.map(({ tag }) => [tag, sha256(tag)])), {
    '0000_first': '15bfff4f17020dd2',
    '0001_promises': 'ff85eac3a34d90fb',
    '0002_growth': 'aced878c73495118'
  }, 'a new one is added here, an old one is never changed')
})

t.test('a database of a newer program is refused with one line, and left as it is', async t => {
  const dataFolder = dataOf(t, LATEST, 'CREATE TABLE of_tomorrow (id integer)')
  const path = join(dataFolder, 'voicemaild.sqlite')
  const before = read(path, 'SELECT * FROM voicemails')
  for (const args of [['serve'], ['account', 'list'], ['check']]) {
    const program = startProgram(t, { cwd: t.testdirName, args, settings: { DATA_DIR: dataFolder, PORT: '0' } })
    t.equal(await program.ended, 1, args.join(' '))
    t.equal(program.err(), `voicemaild: ${path} is of a newer voicemaild: expected schema ${LATEST} or older, found schema ${LATEST + 1}.\n`)
    t.equal(program.out(), '')
  }
  t.strictSame(read(path, 'SELECT * FROM voicemails'), before)
  t.equal(countSteps(path), LATEST + 1)
  t.strictSame(readdirSync(dataFolder).filter(name => name.includes('.schema-')), [])
})

t.test('without the copy nothing is migrated', async t => {
  const dataFolder = dataOf(t, 1)
  const path = join(dataFolder, 'voicemaild.sqlite')
  // Where the copy is to be written something is in the way that is not ours.
  mkdirSync(`${path}.schema-1.new/kept`, { recursive: true })
  t.throws(() => openDatabase(dataFolder, { durability: 'full' }), Error)
  t.equal(countSteps(path), 1)
  t.notOk(existsSync(`${path}.schema-1`))
  t.ok(existsSync(`${path}.schema-1.new/kept`))
})

t.test('a migration that fails leaves the database as it was', async t => {
  const { migrateRows } = await import('../../src/stores/migrations.js')
  const dataFolder = dataOf(t, 2)
  const path = join(dataFolder, 'voicemaild.sqlite')
  const before = { schema: schemaOf(path), voicemails: read(path, 'SELECT * FROM voicemails') }
  const sqlite = new Sqlite(path)
  t.teardown(() => { sqlite.close() })
  const broken = migrationsOf(t, 2, 'UPDATE voicemails SET sip_from = \'lost\';--> statement-breakpoint\nALTER TABLE nowhere ADD `x` integer;')
  t.throws(() => { migrateRows(sqlite, drizzle(sqlite), broken) }, /nowhere/)
  t.strictSame({ schema: schemaOf(path), voicemails: read(path, 'SELECT * FROM voicemails') }, before)
  t.equal(countSteps(path), 2)
  t.equal(countSteps(`${path}.schema-2`), 2, 'and the copy is there')
})

import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import t, { type Test } from 'tap'
import { createWriteQueue, type WriteQueue } from '../../src/stores/write-queue.js'

interface Setting { sqlite: Sqlite.Database, queue: WriteQueue, add: (name: string) => void, names: () => string[], path: string }

/** A database with one table of names, and a queue on it. */
function open (t: Test): Setting {
  const path = join(t.testdir(), 'rows.sqlite')
  const sqlite = new Sqlite(path, { timeout: 0 })
  t.teardown(() => sqlite.close())
  sqlite.pragma('journal_mode = WAL')
  sqlite.exec('CREATE TABLE names (name TEXT PRIMARY KEY, of TEXT REFERENCES names (name) DEFERRABLE INITIALLY DEFERRED)')
  sqlite.pragma('foreign_keys = ON')
  const insert = sqlite.prepare('INSERT INTO names (name) VALUES (?)')
  return {
    sqlite,
    path,
    queue: createWriteQueue(sqlite),
    add: name => { insert.run(name) },
    names: () => sqlite.prepare<[], string>('SELECT name FROM names ORDER BY name').pluck().all()
  }
}

/** How each promise ended: its value, or what it was rejected with. */
async function outcomes (promises: Array<Promise<unknown>>): Promise<unknown[]> {
  return (await Promise.allSettled(promises)).map(end => end.status === 'fulfilled' ? end.value : end.reason)
}

t.test('changes that gather until setImmediate run in one transaction, in their order, and are answered after its COMMIT', async t => {
  const { sqlite, queue, add, names, path } = open(t)
  const other = new Sqlite(path, { readonly: true })
  t.teardown(() => other.close())
  const seen = other.prepare<[], number>('SELECT count(*) FROM names').pluck()
  const order: unknown[] = []
  const change = (name: string) => async () => {
    const value = await queue.write(() => {
      add(name)
      order.push([name, sqlite.inTransaction, seen.get()])
      return name.toUpperCase()
    })
    order.push([value, sqlite.inTransaction, seen.get()])
  }
  await Promise.all(['a', 'b', 'c'].map(async name => await change(name)()))
  t.strictSame(order, [['a', true, 0], ['b', true, 0], ['c', true, 0], ['A', false, 3], ['B', false, 3], ['C', false, 3]])

  const ran: string[] = []
  const first = queue.write(() => { ran.push('first') })
  t.strictSame(ran, [], 'nothing runs at once')
  await new Promise(resolve => { setImmediate(resolve) })
  t.strictSame(ran, ['first'])
  await first
  t.strictSame(names(), ['a', 'b', 'c'])
})

t.test('a change that throws is undone alone, whatever it throws, and rejects its own caller', async t => {
  const { queue, add, names } = open(t)
  const refusal = new Error('no')
  const ends = await outcomes([
    queue.write(() => { add('first') }),
    queue.write(() => {
      add('undone')
      throw refusal
    }),
    queue.write(() => { add('first') }),
    queue.write(() => {
      add('gone')
      add('gone')
    }),
    queue.write(() => { add('gone') })
  ])
  t.match(ends, [undefined, refusal, { code: 'SQLITE_CONSTRAINT_PRIMARYKEY' }, { code: 'SQLITE_CONSTRAINT_PRIMARYKEY' }, undefined])
  t.strictSame(names(), ['first', 'gone'])
})

t.test('a change may use savepoints and transactions of its own, and one that fails inside undoes no more than it should', async t => {
  const { sqlite, queue, add, names } = open(t)
  const inner = sqlite.transaction((name: string, fails: boolean) => {
    add(name)
    if (fails) throw new Error('inner')
  })
  await Promise.all([
    queue.write(() => {
      add('a')
      inner('b', false)
      t.throws(() => { inner('c', true) })
      sqlite.exec('SAVEPOINT change')
      add('d')
      sqlite.exec('ROLLBACK TO change; RELEASE change')
    }),
    t.rejects(queue.write(() => { inner('e', true) }), { message: 'inner' }),
    queue.write(() => { add('f') })
  ])
  t.strictSame(names(), ['a', 'b', 'f'])
  t.notOk(sqlite.inTransaction)
})

t.test('when the COMMIT fails nothing has happened: every caller is told, and the next change goes through', async t => {
  const { sqlite, queue, add, names } = open(t)
  const ends = await outcomes([
    queue.write(() => { add('a') }),
    queue.write(() => { sqlite.exec("INSERT INTO names VALUES ('orphan', 'nobody')") }),
    queue.write(() => { add('b') })
  ])
  t.match(ends, Array(3).fill({ code: 'SQLITE_CONSTRAINT_FOREIGNKEY' }))
  t.strictSame(names(), [])
  t.notOk(sqlite.inTransaction)
  await queue.write(() => { add('a') })
  t.strictSame(names(), ['a'])
})

t.test('when another process keeps the database busy nothing has happened, and the next change goes through', async t => {
  const { queue, add, names, path } = open(t)
  const other = new Sqlite(path)
  t.teardown(() => other.close())
  other.exec('BEGIN IMMEDIATE')
  t.match(await outcomes([queue.write(() => { add('a') }), queue.write(() => { add('b') })]), [{ code: 'SQLITE_BUSY' }, { code: 'SQLITE_BUSY' }])
  other.exec('ROLLBACK')
  await queue.write(() => { add('c') })
  t.strictSame(names(), ['c'])
})

t.test('a full disk is told as insufficient storage, whether SQLite undid one statement or the whole transaction', async t => {
  for (const [sql, undone] of [
    ['INSERT INTO names (name) VALUES (hex(zeroblob(100000)))', 'all'],
    ['INSERT INTO names (name) VALUES (hex(zeroblob(100000))) RETURNING name', 'one']
  ] as const) {
    await t.test(undone, async t => {
      const { sqlite, queue, add, names } = open(t)
      sqlite.pragma('max_page_count = 20')
      const statement = sqlite.prepare(sql)
      const ends = await outcomes([
        queue.write(() => { add('before') }),
        queue.write(() => { if (statement.reader) statement.all(); else statement.run() }),
        queue.write(() => { add('after') })
      ])
      const full = { code: 'insufficient_storage', facts: { cause: { code: 'SQLITE_FULL' } } }
      t.match(ends, undone === 'all' ? [full, full, full] : [undefined, full, undefined])
      t.strictSame(names(), undone === 'all' ? [] : ['after', 'before'], 'who was told of success has a row, and nobody else')
      t.notOk(sqlite.inTransaction)
      await queue.write(() => { add('next') })
      t.ok(names().includes('next'))
    })
  }
})

t.test('a change that another change asks for runs in the next transaction', async t => {
  const { sqlite, queue, add, names } = open(t)
  let second: Promise<void> | undefined
  await queue.write(() => {
    add('a')
    second = queue.write(() => { add('b') })
  })
  t.strictSame(names(), ['a'])
  await queue.idle()
  t.strictSame(names(), ['a', 'b'])
  await second
  t.notOk(sqlite.inTransaction)
})

t.test('idle waits for what was asked for before, and for nothing where nothing was', async t => {
  const { queue, add, names } = open(t)
  await queue.idle()
  const failing = t.rejects(queue.write(() => { throw new Error('no') }))
  void queue.write(() => { add('a') })
  await Promise.all([queue.idle(), queue.idle()])
  t.strictSame(names(), ['a'])
  await failing
  await queue.idle()
  void queue.write(() => { void queue.write(() => { add('b') }) })
  await queue.idle()
  t.strictSame(names(), ['a', 'b'], 'and for what that asked for in its turn')
})

t.test('after the database is closed a change is refused, and none hangs', async t => {
  const { sqlite, queue, add } = open(t)
  sqlite.close()
  t.match(await outcomes([queue.write(() => { add('a') }), queue.write(() => {})]), [TypeError, TypeError])
})

import { ServerResponse } from 'node:http'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import t, { type Test } from 'tap'
import { sample, startService } from '../helper.js'
import { watchDisk } from './disk-steps.js'
import { ForgetfulDisk } from './forgetful-disk.js'

interface StoredRow { id: string, name: string, bytes: number }
interface Told { uploads: number, deletions: number, commits: number, broken: string[] }

/** Uploads and deletes at the same time, with the model of the disk beside; returns what it could not answer for. */
async function run (t: Test, durability: 'full' | 'relaxed'): Promise<Told> {
  const service = await startService(t, { settings: { DURABILITY: durability, LOG_LEVEL: 'error' } })
  const { dataFolder } = service
  const pathOf = (name: string): string => join(dataFolder, 'audio', name.slice(0, 2), name)
  const { id: account } = await service.addUser()
  const disk = new ForgetfulDisk([dataFolder, join(dataFolder, 'incoming'), join(dataFolder, 'audio')])
  const told: Told = { uploads: 0, deletions: 0, commits: 0, broken: [] }
  /** What the database would show after a power cut: what was committed when the disk had the last COMMIT. */
  let rows: StoredRow[] = []
  let removals = new Set<string>()
  const everStored = new Map<string, StoredRow>()
  const database = new Sqlite(join(dataFolder, 'voicemaild.sqlite'), { readonly: true })
  const stored = database.prepare<[], StoredRow>('SELECT id, file_name AS name, file_bytes AS bytes FROM voicemails WHERE uploaded_at_ms IS NOT NULL')
  const noted = database.prepare<[], string>('SELECT file_name FROM removals').pluck()

  const watched = await watchDisk({
    before: ({ operation, path }) => {
      const name = /audio\/..\/(.+)$/.exec(path)?.[1]
      if (operation !== 'unlink' || name === undefined || !disk.isThere(path)) return
      // A file goes only after its row, and while its name is noted.
      if (rows.some(row => row.name === name)) told.broken.push('a file went before its row')
      if (!removals.has(name)) told.broken.push('a file went that was not noted')
    },
    after: step => {
      disk.take(step)
      if (step.operation !== 'COMMIT') return
      told.commits += 1
      rows = stored.all()
      for (const row of rows) {
        everStored.set(row.id, row)
        if (disk.lastingBytes(pathOf(row.name)) !== row.bytes) told.broken.push('a row came before its file was sure')
      }
      const left = new Set(noted.all())
      for (const name of removals) {
        if (!left.has(name) && !disk.isGoneForGood(pathOf(name))) told.broken.push('a note went before its file was gone for good')
      }
      removals = left
    }
  })

  /** What is answered has to hold at the moment when the first byte of the answer is made. */
  const writeHead: unknown = ServerResponse.prototype.writeHead
  Object.assign(ServerResponse.prototype, {
    writeHead (this: ServerResponse, ...args: unknown[]) {
      const [, id = ''] = /^\/uploads\/([0-9a-f-]{36})|([0-9a-f-]{36})$/.exec(this.req.url ?? '')?.filter(part => part !== undefined) ?? []
      if (args[0] === 200 && this.req.method === 'PUT') {
        told.uploads += 1
        const row = rows.find(row => row.id === id)
        if (row === undefined) told.broken.push('an upload was answered before its row was sure')
        else if (disk.lastingBytes(pathOf(row.name)) !== row.bytes) told.broken.push('an upload was answered before its file was sure')
      }
      if (args[0] === 200 && this.req.method === 'DELETE') {
        told.deletions += 1
        const { name = '' } = everStored.get(id) ?? {}
        if (name === '' || rows.some(row => row.id === id)) told.broken.push('a deletion was answered before its row was gone')
        if (!disk.isGoneForGood(pathOf(name)) && !removals.has(name)) told.broken.push('a deletion was answered that could be forgotten')
      }
      return writeHead instanceof Function ? Reflect.apply(writeHead, this, args) : this
    }
  })

  try {
    const audio = await sample('ok/pcm16-48k-stereo.wav')
    await Promise.all(Array.from({ length: 8 }, async (_none, worker) => {
      for (let n = 0; n < 5; n++) {
        const { id, path } = await service.openSlot(account)
        // Of every size, so that they overlap at every place.
        const body = audio.subarray(0, 1000 + (worker * 5 + n) * 9000)
        const upload = await fetch(service.url + path, { method: 'PUT', body })
        await upload.arrayBuffer()
        if (n % 2 === 1) await service.call('DELETE', `/accounts/${account}/voicemails/${id}`)
      }
    }))
  } finally {
    watched.restore()
    Object.assign(ServerResponse.prototype, { writeHead })
    database.close()
  }
  return told
}

t.test('no answer depends on anything that a power cut could take', async t => {
  const { uploads, deletions, commits, broken } = await run(t, 'full')
  t.strictSame(broken, [])
  t.strictSame([uploads, deletions], [40, 16], 'all were answered')
  t.ok(commits > 0, `${commits} commits looked at`)
  t.comment(`${uploads} uploads and ${deletions} deletions answered, ${commits} commits, ${broken.length} of them dependent on what was not synced`)
})

t.test('and a COMMIT waits for the disk', async t => {
  const settings = new Set<string>()
  const memory = new Sqlite(':memory:')
  const statements: Sqlite.Statement = Object.getPrototypeOf(memory.prepare('SELECT 1'))
  memory.close()
  const { run } = statements
  Object.assign(statements, {
    run (this: Sqlite.Statement, ...args: unknown[]) {
      if (this.source === 'COMMIT') settings.add(`${this.database.name.split('/').at(-1)} ${this.database.pragma('journal_mode', { simple: true })} ${this.database.pragma('synchronous', { simple: true })}`)
      return Reflect.apply<Sqlite.Statement, unknown[], unknown>(run, this, args)
    }
  })
  t.teardown(() => { Object.assign(statements, { run }) })
  const service = await startService(t, { settings: { LOG_LEVEL: 'error' } })
  settings.clear()
  await service.addUser()
  // 2 is FULL: https://sqlite.org/pragma.html#pragma_synchronous
  t.strictSame([...settings], ['voicemaild.sqlite wal 2'])
})

t.test('where durability is relaxed the same look finds what is not sure', async t => {
  const { uploads, broken } = await run(t, 'relaxed')
  t.equal(uploads, 40)
  t.match(new Set(broken), new Set(['a row came before its file was sure', 'an upload was answered before its file was sure', 'a note went before its file was gone for good']))
})

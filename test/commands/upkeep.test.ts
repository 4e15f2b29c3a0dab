import { chmod, copyFile, link, lstat, mkdir, readdir, readFile, rename, rm, stat, symlink, truncate, unlink, utimes, writeFile } from 'node:fs/promises'
import fs from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { basename, join } from 'node:path'
import Sqlite from 'better-sqlite3'
import t from 'tap'
import { runProgram } from '../../src/commands/program.js'
import { check } from '../../src/domain/check.js'
import { createAudioUpkeep } from '../../src/stores/audio-upkeep.js'
import { openDatabase } from '../../src/stores/database.js'
import { backUp } from '../../src/stores/backup.js'
import { sample, startService, type Json, type Service, type Testing } from '../helper.js'

const HOUR_MS = 3600_000
const audio = await sample('ok/flexisip-voicemail-0.27s.wav')
const inTwoHours = (): number => Date.now() + 2 * HOUR_MS

interface Run { code: number, out: string, err: string, progress: string[] }

async function run (dataFolder: string, args: string[], { clock = inTwoHours, isTerminal = false } = {}): Promise<Run> {
  const out: string[] = []
  const err: string[] = []
  const progress: string[] = []
  const code = await runProgram({
    args,
    env: { DATA_DIR: dataFolder },
    clock,
    output: {
      print: line => { out.push(line) },
      tell: line => { err.push(line) },
      progress: isTerminal ? line => { progress.push(line) } : undefined
    }
  })
  return { code, out: out.join('\n'), err: err.join('\n'), progress }
}

async function json (dataFolder: string, ...args: string[]): Promise<Json> {
  const { out, code } = await run(dataFolder, [...args, '--json'])
  return { code, ...JSON.parse(out) }
}

interface Stored { id: string, file: string, audioUrl: string }

/** Stores a voicemail; `file` is its path on the disk. */
async function store ({ openSlot, url, data, dataFolder }: Service, account: number): Promise<Stored> {
  const slot = await openSlot(account)
  const response = await fetch(url + slot.path, { method: 'PUT', body: audio })
  const { download_url: audioUrl }: Json = await response.json()
  const { fileName = null } = await data.voicemailStore.find(slot.id) ?? {}
  return { id: slot.id, audioUrl, file: join(dataFolder, 'audio', data.audioStore.relativePath(fileName ?? '')) }
}

async function tree (folder: string): Promise<string[]> {
  return (await readdir(folder, { recursive: true, withFileTypes: true })).filter(entry => !entry.isDirectory()).map(entry => join(entry.parentPath, entry.name).slice(folder.length + 1)).sort()
}

t.test('check', async t => {
  const service = await startService(t)
  const { addUser, call, dataFolder, data, files } = service
  const { id } = await addUser()
  const show = async (voicemail: string): Promise<Json> => (await call('GET', `/accounts/${id}/voicemails/${voicemail}`)).body
  const [good, lost, cut, spoiled] = [await store(service, id), await store(service, id), await store(service, id), await store(service, id)]
  await service.openSlot(id)
  const shard = join(dataFolder, 'audio', 'zz')

  await t.test('finds nothing where everything is as it should be', async t => {
    t.strictSame(await json(dataFolder, 'check', '--deep'), { code: 0, files: 4, findings: [] })
    const { code, out, progress } = await run(dataFolder, ['check'], { isTerminal: true })
    t.strictSame([code, out], [0, '4 files checked, 0 findings'])
    t.match(progress.at(-1), /^Checking \[#{25}\] 100 %$/)
  })

  await t.test('does not take a folder that cannot be read for a strange file', async t => {
    await mkdir(shard)
    const { readdir: real } = fs
    fs.readdir = Object.assign(async (...args: Parameters<typeof real>) => {
      if (String(args[0]).endsWith('/zz')) throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' })
      return await real(...args)
    }) as typeof real
    syncBuiltinESMExports()
    try {
      t.match(await run(dataFolder, ['check', '--repair']), { code: 1, err: /EIO/ })
    } finally {
      fs.readdir = real
      syncBuiltinESMExports()
    }
    t.ok((await stat(shard)).isDirectory())
  })

  await unlink(lost.file)
  await truncate(cut.file, 4000)
  await writeFile(spoiled.file, Buffer.from(audio).fill(1, 2000, 2001))
  await writeFile(join(shard, 'z'.repeat(24)), 'stranger')
  await link(good.file, join(shard, basename(good.file)))
  await writeFile(join(dataFolder, 'audio', 'README'), 'not ours')
  await symlink('/etc/passwd', join(shard, 'link'))
  // Shorter than a shard's name, and the beginning of one.
  await mkdir(join(dataFolder, 'audio', basename(good.file).slice(0, 1)))

  const strange = [['README', 8], [`zz/${basename(good.file)}`, audio.length], ['zz/link', 0], [`zz/${'z'.repeat(24)}`, 8]] as const

  await t.test('leaves alone what is younger than an hour', async t => {
    t.match(await run(dataFolder, ['check', '--deep'], { clock: Date.now }), { code: 0, out: /0 findings/ })
  })

  await t.test('finds strange files, missing ones and wrong sizes, and with --deep wrong bytes; the exit code is 1', async t => {
    const missing = { kind: 'missing_file', voicemail: lost.id, expected: audio.length, found: null, repair: null, path: data.audioStore.relativePath(basename(lost.file)) }
    const size = { kind: 'wrong_size', voicemail: cut.id, expected: audio.length, found: 4000, repair: null }
    const expected = new Set<unknown>([...strange.map(([path]) => path), missing.path, data.audioStore.relativePath(basename(cut.file))])
    const shallow = await json(dataFolder, 'check')
    t.match(shallow, { code: 1, files: 4 })
    t.strictSame(new Set(shallow.findings.map(({ path }: Json) => path)), expected)
    const of = (kind: string): Json[] => shallow.findings.filter((finding: Json) => finding.kind === kind)
    t.match(of('missing_file'), [missing])
    t.match(of('wrong_size'), [size])
    t.strictSame(of('strange_file').map(({ path, found, voicemail }) => [path, found, voicemail]).sort(), strange.map(([path, bytes]) => [path, bytes, null]).sort())
    const deep = await json(dataFolder, 'check', '--deep')
    t.equal(deep.findings.length, shallow.findings.length + 1)
    t.match(deep.findings.filter(({ kind }: Json) => kind === 'wrong_hash'), [{ voicemail: spoiled.id, expected: (await show(spoiled.id)).sha256, found: /^[0-9a-f]{64}$/ }])
    const { code, out } = await run(dataFolder, ['check', '--deep'])
    t.equal(code, 1)
    t.match(out, `the audio of voicemail ${lost.id} is gone`)
    t.match(out, `voicemail ${cut.id} should have 4320 bytes, and has 4000`)
    t.match(out, `voicemail ${spoiled.id} should have the SHA-256`)
    t.match(out, /^README: no voicemail knows this file$/m)
    t.match(out, /^4 files checked, 7 findings$/m)
    t.strictSame((await files()).length, 6, 'nothing has been touched')
    t.match(await show(lost.id), { failure: null })
  })

  await t.test('--repair quarantines what is strange and marks what is gone, and both are told', async t => {
    await writeFile(join(shard, 'young'), 'under way')
    const later = (Date.now() + 2 * HOUR_MS) / 1000
    await utimes(join(shard, 'young'), later, later)
    const { findings, code } = await json(dataFolder, 'check', '--deep', '--repair')
    t.equal(code, 1)
    const repairs = new Map(findings.map(({ path, repair }: Json) => [path, repair]))
    t.equal(repairs.get('README'), 'moved to lost+found/README')
    t.equal(repairs.get('zz/link'), 'moved to lost+found/zz-link')
    t.equal(repairs.get(data.audioStore.relativePath(basename(lost.file))), 'marked as lost')
    const spoiledName = data.audioStore.relativePath(basename(spoiled.file)).replace('/', '-')
    t.equal(repairs.get(data.audioStore.relativePath(basename(spoiled.file))), `moved to lost+found/${spoiledName}, marked as lost`)
    const quarantine = join(dataFolder, 'lost+found')
    t.equal((await readdir(quarantine)).length, 6, 'nothing was dropped')
    t.match(await readFile(join(quarantine, spoiledName)), Buffer.from(audio).fill(1, 2000, 2001))
    t.equal((await stat(quarantine)).mode & 0o777, 0o700)
    t.ok((await lstat('/etc/passwd')).isFile(), 'a link is moved itself')

    t.strictSame(await json(dataFolder, 'check', '--deep'), { code: 0, files: 4, findings: [] }, 'marked rows are not found again')
    t.ok(await lstat(join(shard, 'young')), 'what is young is left')
    await rm(shard, { recursive: true })
  })

  await t.test('a voicemail that lost its audio is still told of, and its URL says 404 audio_lost', async t => {
    for (const { id: voicemail, audioUrl } of [lost, cut, spoiled]) {
      t.match(await show(voicemail), { status: 'stored', sha256: /./, failure: { code: 'audio_lost', detail: /no longer on the disk/ } })
      const response = await fetch(audioUrl)
      t.match(await response.json(), { status: 404, code: 'audio_lost' })
    }
    t.match(await show(good.id), { failure: null })
    t.equal((await fetch(good.audioUrl)).status, 200)
    t.equal((await call('DELETE', `/accounts/${id}/voicemails/${lost.id}`)).status, 200, 'it can be deleted')
  })

  await t.test('a second stranger of the same name does not overwrite the first', async t => {
    await writeFile(join(dataFolder, 'audio', 'README'), 'another')
    t.match((await json(dataFolder, 'check', '--repair')).findings, [{ repair: 'moved to lost+found/README.1' }])
    t.equal(await readFile(join(dataFolder, 'lost+found', 'README'), 'utf8'), 'not ours')
  })

  await t.test('beside a server: a voicemail deleted after its file was seen is no finding, and repair does not stumble', async t => {
    const audioUpkeep = createAudioUpkeep(dataFolder)
    const going = await store(service, id)
    const ongoing = await store(service, id)
    const { findings } = await check({
      upkeepStore: data.upkeepStore,
      clock: inTwoHours,
      relativePath: data.audioStore.relativePath,
      audioUpkeep: {
        ...audioUpkeep,
        filesIn: async shard => {
          const found = await audioUpkeep.filesIn(shard)
          if (found.some(({ path }) => path.endsWith(basename(going.file)))) await call('DELETE', `/accounts/${id}/voicemails/${going.id}`)
          return found
        },
        hash: async path => {
          if (path.endsWith(basename(ongoing.file))) await call('DELETE', `/accounts/${id}/voicemails/${ongoing.id}`)
          return await audioUpkeep.hash(path)
        }
      }
    }, { deep: true, repair: true })
    t.strictSame(findings, [])
    t.strictSame([await show(going.id), await show(ongoing.id)].map(({ status }) => status), [404, 404])
  })

  await t.test('a file whose deletion is noted and not yet carried out is no finding', async t => {
    const { file, id: going } = await store(service, id)
    const { remove } = data.audioStore
    data.audioStore.remove = async () => { throw new Error('the disk is away') }
    await call('DELETE', `/accounts/${id}/voicemails/${going}`)
    data.audioStore.remove = remove
    t.ok(await lstat(file))
    t.match(await json(dataFolder, 'check'), { code: 0, findings: [] })
  })
})

async function backedUp (t: Testing): Promise<{ service: Service, account: number, stored: Stored[], target: string }> {
  const service = await startService(t)
  const { id: account } = await service.addUser()
  const stored: Stored[] = []
  for (let n = 0; n < 4; n++) stored.push(await store(service, account))
  return { service, account, stored, target: join(service.dataFolder, '..', 'backup') }
}

/** Serves a folder, and tells which voicemails of the account can be heard. */
async function heard (t: Testing, dataFolder: string, account: number): Promise<string[]> {
  const { call, close, url } = await startService(t, { settings: { DATA_DIR: dataFolder } })
  const { body } = await call('GET', `/accounts/${account}/voicemails?status=stored&limit=500`)
  const ids: string[] = []
  for (const { id, download_url: audioUrl, sha256 } of body) {
    const response = await fetch(new URL(new URL(audioUrl).pathname, url))
    if (Buffer.from(await response.arrayBuffer()).equals(audio) && response.headers.get('etag') === `"${sha256}"`) ids.push(id)
  }
  await close()
  return ids.sort()
}

t.test('backup and restore', async t => {
  const { service, account, stored, target } = await backedUp(t)
  const { dataFolder, call, url } = service
  const base = join(dataFolder, '..')

  await t.test('a backup beside the server has everything, private, and is told', async t => {
    t.match(await json(dataFolder, 'backup', target), { code: 0, files: 4, copied: 4, removed: 0, missing: [] })
    // The lock is empty, and SQLite's own.
    const names = (await tree(target)).filter(name => name !== 'server.lock')
    t.equal(names.filter(name => name.startsWith('audio/')).length, 4)
    t.strictSame(names.filter(name => !name.startsWith('audio/')), ['admin-api-key', 'signing-key', 'voicemaild-backup.json', 'voicemaild.sqlite'], 'and nothing half done')
    for (const name of names) t.equal((await stat(join(target, name))).mode & 0o077, 0, `${name} is for its user alone`)
    t.equal((await stat(target)).mode & 0o777, 0o700)
    const [one] = stored
    if (one === undefined) throw new Error('nothing stored')
    t.equal((await stat(join(target, 'audio', service.data.audioStore.relativePath(basename(one.file))))).ino, (await stat(one.file)).ino, 'on the same file system as hard links')
  })

  await t.test('a second run copies what has changed', async t => {
    const fifth = await store(service, account)
    const [first] = stored.splice(0, 1)
    stored.push(fifth)
    await call('DELETE', `/accounts/${account}/voicemails/${first?.id}`)
    t.match(await json(dataFolder, 'backup', target), { code: 0, files: 4, copied: 1, removed: 1, missing: [] })
    t.match(await run(dataFolder, ['backup', target]), { code: 0, out: `Backed up to ${target}: 4 files, 0 of them copied, 0 removed`, err: '' })
    const { progress } = await run(dataFolder, ['backup', target], { isTerminal: true })
    t.match(progress.at(-1), /^Copying \[#{25}\] 100 %$/)
  })

  await t.test('it is restored into an empty folder, which passes check --deep and serves', async t => {
    const restored = join(base, 'restored')
    await mkdir(restored)
    await writeFile(join(restored, '.gitkeep'), '')
    t.match(await json(restored, 'restore', target), { code: 0, files: 4, missing: [] })
    t.strictSame(await json(restored, 'check', '--deep'), { code: 0, files: 4, findings: [] })
    t.equal(await readFile(join(restored, 'signing-key'), 'utf8'), await readFile(join(dataFolder, 'signing-key'), 'utf8'), 'URLs that were signed stay good')
    t.strictSame(await heard(t, restored, account), stored.map(({ id }) => id).sort())
    const [one] = stored
    t.not((await stat(join(restored, 'audio', service.data.audioStore.relativePath(basename(one?.file ?? ''))))).ino, (await stat(one?.file ?? '')).ino, 'a restored folder shares no file with its backup')
    const { code, err } = await run(restored, ['restore', target])
    t.strictSame([code, /is not empty/.test(err)], [1, true], 'a folder that is not empty is refused')
    t.match(await run(dataFolder, ['restore', target]), { code: 1, err: /is not empty/ })
  })

  await t.test('uploads and deletes go on meanwhile', async t => {
    const stop = new AbortController()
    const kept: string[] = []
    const load = Array.from({ length: 3 }, async () => {
      while (!stop.signal.aborted) {
        const [one, two] = [await store(service, account), await store(service, account)]
        await call('DELETE', `/accounts/${account}/voicemails/${one.id}`)
        kept.push(two.id)
      }
    })
    const before = stored.map(({ id }) => id)
    for (let n = 0; n < 2; n++) {
      const acknowledged = [...kept]
      t.match(await json(dataFolder, 'backup', target), { code: 0, missing: [] })
      const restored = join(base, `beside${n}`)
      t.match(await json(restored, 'restore', target), { code: 0, missing: [] })
      t.match(await json(restored, 'check', '--deep'), { code: 0, findings: [] })
      const has = new Set(await heard(t, restored, account))
      t.ok([...before, ...acknowledged].every(id => has.has(id)), `everything is in it that was answered before it began (${acknowledged.length})`)
    }
    stop.abort()
    await Promise.all(load)
    stored.push(...kept.map(id => ({ id, file: '', audioUrl: '' })))
    t.equal((await fetch(`${url}/ping`)).status, 200)
  })

  await t.test('the rows are copied at once: a server that never stops writing does not keep a backup from its end', async t => {
    const folder = join(base, 'large')
    await mkdir(folder)
    const database = openDatabase(folder, { durability: 'relaxed' })
    const server = new Sqlite(join(folder, 'voicemaild.sqlite'))
    const write = server.prepare("INSERT INTO events (voicemail_id, account_id, kind, caller, at_ms) VALUES ('v', 1, 'listened', ?, 0)")
    server.transaction(() => { for (let n = 0; n < 5000; n++) write.run('x'.repeat(500)) })()
    let left = 500
    // Between any two steps of a copy.
    setImmediate(function goOn () {
      if (left-- <= 0) return
      write.run('meanwhile')
      setImmediate(goOn)
    })
    t.teardown(async () => {
      left = 0
      server.close()
      await database.close()
    })
    await database.copyTo(join(base, 'large.sqlite'))
    t.ok(left > 0, 'done before the server paused')
  })

  await t.test('deleted while it is copied: the backup forgets it too', async t => {
    const going = await store(service, account)
    const { copyRows, voicemailStore } = service.data
    const copied = await backUp(target, {
      dataFolder,
      isFileKnown: voicemailStore.isFileKnown,
      copyRows: async path => {
        await copyRows(path)
        await call('DELETE', `/accounts/${account}/voicemails/${going.id}`)
      }
    })
    t.strictSame(copied.missing, [])
    const rows = new Sqlite(join(target, 'voicemaild.sqlite'), { readonly: true })
    t.equal(rows.prepare('SELECT 1 FROM voicemails WHERE id = ?').get(going.id), undefined)
    t.strictSame(rows.prepare('SELECT sum(file_bytes) AS bytes, count(*) AS n FROM voicemails WHERE uploaded_at_ms IS NOT NULL AND account_id = ?').get(account),
      rows.prepare('SELECT stored_bytes AS bytes, stored_messages AS n FROM accounts WHERE id = ?').get(account))
    rows.close()
  })

  await t.test('cut off in the middle it leaves the older backup whole', async t => {
    const expected = stored.map(({ id }) => id).sort()
    const newer = await store(service, account)
    const { copyRows, voicemailStore } = service.data
    const cutOff = async (options: object): Promise<void> => {
      await t.rejects(backUp(target, { dataFolder, copyRows, isFileKnown: voicemailStore.isFileKnown, ...options }), { message: 'cut off' })
    }
    await cutOff({ onProgress: (done: number, total: number) => { if (done === total) throw new Error('cut off') } })
    await cutOff({
      copyRows: async (path: string) => {
        await writeFile(path, 'half of it')
        await writeFile(`${path}-journal`, 'and a journal')
        throw new Error('cut off')
      }
    })
    const restored = join(base, 'older')
    t.match(await json(restored, 'restore', target), { code: 0, missing: [] })
    t.strictSame(await heard(t, restored, account), expected)
    stored.push(newer)
    t.match(await json(dataFolder, 'backup', target), { code: 0, missing: [] }, 'and the next one is good again')
    t.strictSame((await tree(target)).filter(name => name.includes('.new')), [])
  })

  await t.test('two at once into the same folder: the second is refused', async t => {
    const { copyRows, voicemailStore } = service.data
    await backUp(target, {
      dataFolder,
      isFileKnown: voicemailStore.isFileKnown,
      copyRows: async path => {
        t.match(await run(dataFolder, ['backup', target]), { code: 1, err: /Another backup into .* is under way/ })
        await copyRows(path)
      }
    })
  })

  await t.test('a foreign folder is refused, and stays as it is', async t => {
    const foreign = join(base, 'foreign')
    await mkdir(foreign)
    await writeFile(join(foreign, 'thesis.txt'), 'years of work')
    t.match(await run(dataFolder, ['backup', foreign]), { code: 1, err: /neither empty nor a backup/ })
    t.strictSame(await tree(foreign), ['thesis.txt'])
    t.match(await run(dataFolder, ['backup', dataFolder]), { code: 1, err: /neither empty nor a backup/ }, 'the data folder itself too')
  })

  await t.test('where hard links cannot be made the files are copied', async t => {
    const elsewhere = join(base, 'elsewhere')
    const { link: real } = fs
    fs.link = async () => { throw Object.assign(new Error('EXDEV: cross-device link'), { code: 'EXDEV' }) }
    syncBuiltinESMExports()
    try {
      t.match(await json(dataFolder, 'backup', elsewhere), { code: 0, missing: [] })
    } finally {
      fs.link = real
      syncBuiltinESMExports()
    }
    for (const name of (await tree(elsewhere)).filter(name => name !== 'server.lock')) {
      t.equal((await stat(join(elsewhere, name))).nlink, 1)
      t.equal((await stat(join(elsewhere, name))).mode & 0o077, 0)
      // As a file system without modes gives them back.
      await chmod(join(elsewhere, name), 0o644)
    }
    const restored = join(base, 'from-elsewhere')
    t.match(await json(restored, 'restore', elsewhere), { code: 0 })
    for (const name of await tree(restored)) t.equal((await stat(join(restored, name))).mode & 0o077, 0, `${name} is private again`)
    t.strictSame(await heard(t, restored, account), stored.map(({ id }) => id).sort())
  })

  await t.test('a file that the disk has lost is told by backup and by restore, and what is marked is no news', async t => {
    const gone = await store(service, account)
    const other = join(base, 'other')
    await json(dataFolder, 'backup', other)
    await rm(gone.file)
    await rm(join(other, 'audio', service.data.audioStore.relativePath(basename(gone.file))))
    t.match(await json(join(base, 'with-a-gap'), 'restore', other), { code: 1, missing: [basename(gone.file)] })
    t.match(await json(dataFolder, 'backup', other), { code: 1, missing: [basename(gone.file)] })
    t.match(await run(dataFolder, ['backup', other]), { code: 1, out: new RegExp(`^${basename(gone.file)}: this file is named by a voicemail, but is not there`) })
    await json(dataFolder, 'check', '--repair')
    t.match(await json(dataFolder, 'backup', other), { code: 0, missing: [] })
    t.match(await json(join(base, 'with-a-mark'), 'restore', other), { code: 0, missing: [] })
    t.match(await json(join(base, 'with-a-mark'), 'check', '--deep'), { code: 0, findings: [] })
  })
})

t.test('what is no whole backup is not restored, and nothing is written', async t => {
  const { service: { dataFolder, close }, target } = await backedUp(t)
  const base = join(dataFolder, '..')
  await json(dataFolder, 'backup', target)
  await close()
  const restored = join(base, 'restored')
  const refused = async (source: string, why: RegExp, what: string): Promise<void> => {
    t.match(await run(restored, ['restore', source]), { code: 1, out: '', err: why }, what)
    t.strictSame(await tree(restored).catch(() => []), [], `${what}: nothing is left`)
  }
  await refused(join(base, 'nowhere'), /no complete backup/, 'no folder')
  await refused(dataFolder, /no complete backup/, 'a data folder')
  const mark = join(target, 'voicemaild-backup.json')
  await writeFile(mark, '{"complete":false}\n')
  await refused(target, /no complete backup/, 'a first backup that was cut off')
  await writeFile(mark, '{"complete":true}\n')

  const rows = join(target, 'voicemaild.sqlite')
  const kept = join(base, 'kept.sqlite')
  await rename(rows, kept)
  await refused(target, /cannot be read/, 'without rows')
  await symlink(kept, rows)
  await refused(target, /./, 'with a link in their place')
  await rm(rows)
  await writeFile(rows, Buffer.alloc(8192, 'x'))
  await refused(target, /cannot be read/, 'with something else in their place')

  for (const [what, change] of [
    ['a row names a file outside', "UPDATE voicemails SET file_name = '../../../etc/passwd' WHERE rowid = 1"],
    ['a row names another path', "UPDATE voicemails SET file_name = 'ab/cdefghijklmnopqrstuvwxy' WHERE rowid = 1"],
    ['a removal names a file outside', "INSERT INTO removals VALUES ('../../../etc/passwd')"]
  ] as const) {
    await rm(rows)
    await copyFile(kept, rows)
    const database = new Sqlite(rows)
    database.exec(change)
    database.close()
    await refused(target, /names a file that voicemaild did not make/, what)
  }
  await copyFile(kept, rows)
  t.match(await json(restored, 'restore', target), { code: 0, files: 4 }, 'the real one is')
})

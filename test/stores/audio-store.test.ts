import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import fs from 'node:fs/promises'
import { basename, dirname, join, relative } from 'node:path'
import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { openData } from '../../src/commands/data.js'
import { readConfig } from '../../src/config.js'
import { recover } from '../../src/domain/recovery.js'
import { AppError } from '../../src/errors.js'
import { openAudioStore, type AudioStore, type AudioStoreOptions, type Lent, type WrittenFile } from '../../src/stores/audio-store.js'
import { explainFullDisk } from '../../src/stores/disk-full.js'
import { watchDisk, type Step } from '../crash/disk-steps.js'

const AUDIO = Buffer.from(Array.from({ length: 700_000 }, (_, index) => index * index % 251))
const SHA256 = createHash('sha256').update(AUDIO).digest('hex')
const NOWHERE = 'nowhere00000000000000000'

async function * source (...chunks: Uint8Array[]): AsyncGenerator<Uint8Array> { yield * chunks }
const commit = async (file: WrittenFile): Promise<WrittenFile> => file

async function openStore (t: Test, durability: AudioStoreOptions['durability'] = 'full') {
  const dataFolder = t.testdir()
  return { dataFolder, store: await openAudioStore({ dataFolder, durability }) }
}

/** Paths of all files in a data folder, relative to it. */
async function filesIn (dataFolder: string): Promise<string[]> {
  return (await fs.readdir(dataFolder, { recursive: true, withFileTypes: true }))
    .filter(entry => !entry.isDirectory()).map(entry => relative(dataFolder, join(entry.parentPath, entry.name)))
}

const errorOf = (code: string): Error => Object.assign(new Error(`${code}: injected`), { code })

/**
 * Notes the store's calls to the file system, as `link audio/NN/NAME`, and makes those fail that `fault` has an error for. Tells how many
 * files are still open.
 */
async function watchCalls (t: Test, dataFolder: string, fault: (call: string) => Error | undefined = () => undefined) {
  const calls: string[] = []
  const take = ({ operation, path }: Step): void => {
    const call = `${operation} ${relative(dataFolder, path).replace(/[0-9a-z]{24}$/, 'NAME').replace(/^audio.[0-9a-z]{2}(?![a-z])/, 'audio/NN')}`
    calls.push(call)
    const error = fault(call)
    if (error !== undefined) throw error
  }
  const { openHandles, restore } = await watchDisk({
    before: step => { if (step.operation !== 'close') take(step) },
    // What fails to close is closed nevertheless.
    after: step => { if (step.operation === 'close') take(step) }
  })
  t.teardown(restore)
  return { calls, openHandles, commit: async <T>(result: T): Promise<T> => { calls.push('commit'); return result } }
}

/** What a write does, in its order, where the folder of the file is not there yet. */
const SEQUENCE = [
  'open incoming/NAME', ...Array.from({ length: 4 }, () => 'write incoming/NAME'), 'datasync incoming/NAME', 'close incoming/NAME',
  'mkdir audio/NN', 'open audio', 'sync audio', 'close audio',
  'link audio/NN/NAME', 'open audio/NN', 'sync audio/NN', 'close audio/NN',
  'commit', 'unlink incoming/NAME'
]
const chunks = () => source(AUDIO.subarray(0, 500_000), AUDIO.subarray(500_000))

t.test('what was written is on the disk under a name of the store\'s own, for its owner alone, before the commit', async t => {
  const { dataFolder, store } = await openStore(t)
  const answer = await store.write(chunks(), async file => {
    t.same(file, { fileName: file.fileName, fileBytes: AUDIO.length, sha256: SHA256 })
    t.match(file.fileName, /^[0-9a-z]{24}$/)
    const path = join(dataFolder, 'audio', store.relativePath(file.fileName))
    t.ok((await fs.readFile(path)).equals(AUDIO))
    t.equal((await fs.stat(path)).mode & 0o777, 0o600)
    t.strictSame(await fs.readdir(join(dataFolder, 'incoming')), [file.fileName], 'the next start would look at it')
    return { file }
  })
  t.strictSame(await filesIn(dataFolder), [`audio/${answer.file.fileName.slice(0, 2)}/${answer.file.fileName}`])
  t.equal(store.relativePath(answer.file.fileName), `${answer.file.fileName.slice(0, 2)}/${answer.file.fileName}`)
  for (const folder of ['incoming', 'audio', `audio/${answer.file.fileName.slice(0, 2)}`]) {
    t.equal((await fs.stat(join(dataFolder, folder))).mode & 0o777, 0o700, folder)
  }
})

t.test('any chunks, many writes at once: the same bytes, each in a file of its own', async t => {
  const { dataFolder, store } = await openStore(t, 'relaxed')
  await Promise.all([
    [], [Buffer.alloc(0)], [AUDIO], [AUDIO.subarray(0, 1)], Array.from(AUDIO.subarray(0, 5_000), byte => Buffer.from([byte])),
    [AUDIO.subarray(0, 262_143), AUDIO.subarray(262_143, 262_145), Buffer.alloc(0), AUDIO.subarray(262_145)]
  ].map(async parts => {
    const bytes = Buffer.concat(parts)
    const { fileName, fileBytes, sha256 } = await store.write(source(...parts), commit)
    t.equal(fileBytes, bytes.length)
    t.equal(sha256, createHash('sha256').update(bytes).digest('hex'))
    t.ok((await fs.readFile(join(dataFolder, 'audio', store.relativePath(fileName)))).equals(bytes))
  }))
  t.equal((await filesIn(dataFolder)).length, 6)
  await t.resolves(fc.assert(fc.asyncProperty(fc.array(fc.nat(300_000), { maxLength: 8 }), async sizes => {
    const parts = sizes.map((size, index) => AUDIO.subarray(index, index + size))
    const { fileName, sha256 } = await store.write(source(...parts), commit)
    const written = await fs.readFile(join(dataFolder, 'audio', store.relativePath(fileName)))
    await store.remove([fileName])
    return written.equals(Buffer.concat(parts)) && sha256 === createHash('sha256').update(written).digest('hex')
  }), { numRuns: 20 }))
})

t.test('file, new folder and entry are synced, in this order, before the commit; relaxed, nothing is', async t => {
  await t.test('full', async t => {
    const { dataFolder, store } = await openStore(t)
    const { calls, openHandles, commit } = await watchCalls(t, dataFolder)
    const { fileName } = await store.write(chunks(), commit)
    t.strictSame(calls, SEQUENCE)
    calls.length = 0
    await store.remove([fileName])
    t.strictSame(calls, ['unlink audio/NN/NAME', 'unlink incoming/NAME', 'open audio/NN', 'sync audio/NN', 'close audio/NN'])
    t.equal(openHandles(), 0)
  })
  await t.test('relaxed', async t => {
    const { dataFolder, store } = await openStore(t, 'relaxed')
    const { calls, commit } = await watchCalls(t, dataFolder)
    const { fileName } = await store.write(chunks(), commit)
    await store.remove([fileName])
    t.strictSame(calls.filter(call => /sync/.test(call)), [])
    t.strictSame(calls.filter(call => /link|commit/.test(call)), ['link audio/NN/NAME', 'commit', 'unlink incoming/NAME', 'unlink audio/NN/NAME', 'unlink incoming/NAME'])
  })
})

t.test('a folder that is there already counts as lasting only after this process has synced it once', async t => {
  const { dataFolder, store } = await openStore(t)
  const letters = [...'0123456789abcdefghijklmnopqrstuvwxyz']
  for (const name of letters.flatMap(first => letters.map(second => first + second))) mkdirSync(join(dataFolder, 'audio', name))
  const { calls, commit } = await watchCalls(t, dataFolder)
  await store.write(chunks(), commit)
  t.strictSame(calls, SEQUENCE)
})

t.test('whatever call fails before the row is there, nothing is left, nothing stays open, and the caller is told', async t => {
  for (const [step, failing] of SEQUENCE.entries()) {
    if (failing === 'commit' || step > SEQUENCE.indexOf('commit')) continue
    await t.test(`${failing}, step ${step}`, async t => {
      const { dataFolder, store } = await openStore(t)
      let error: Error | undefined = errorOf('EIO')
      const watched = await watchCalls(t, dataFolder, () => watched.calls.length === step + 1 ? error : undefined)
      const { calls, openHandles, commit } = watched
      let isSourceClosed = false
      const endless = async function * (): AsyncGenerator<Uint8Array> {
        try {
          yield * chunks()
        } finally {
          isSourceClosed = true
        }
      }
      await t.rejects(store.write(endless(), commit), error)
      t.equal(calls[step], failing)
      t.notOk(calls.includes('commit'), 'no row is written')
      t.strictSame(await filesIn(dataFolder), [])
      t.equal(openHandles(), 0, 'no handle is open')
      t.equal(isSourceClosed, step > 0, 'the source is told to let go, unless it was never asked')

      // Another store, because this one may have the folder of the next file in its mind already.
      error = undefined
      const next = await openAudioStore({ dataFolder, durability: 'full' })
      calls.length = 0
      error = errorOf('ENOSPC')
      await t.rejects(next.write(chunks(), commit), { code: 'insufficient_storage', facts: { cause: error, headers: { 'retry-after': '60' } } })
      t.strictSame(await filesIn(dataFolder), [])

      calls.length = 0
      error = undefined
      await next.write(chunks(), commit)
      t.equal((await filesIn(dataFolder)).length, 1, 'and then the store works on')
    })
  }
})

t.test('a source or a commit that fails leaves nothing, and its error is passed on', async t => {
  const { dataFolder, store } = await openStore(t)
  const refusal = new AppError('unsupported_audio', 'This is no audio.')
  for (const sent of [[], [AUDIO.subarray(0, 10)], [AUDIO, AUDIO]]) {
    let commits = 0
    await t.rejects(store.write((async function * () {
      yield * sent
      throw refusal
    })(), async () => { commits++ }), refusal)
    t.equal(commits, 0)
    t.strictSame(await filesIn(dataFolder), [])
  }
  await t.rejects(store.write(chunks(), async () => { throw refusal }), refusal)
  await t.rejects(store.write(chunks(), async () => { throw errorOf('SQLITE_FULL') }), { code: 'insufficient_storage' })
  t.strictSame(await filesIn(dataFolder), [])
})

t.test('where the clean-up fails as well, the first error counts, and the next start finds what is left', async t => {
  const { dataFolder, store } = await openStore(t)
  await t.test('the disk refuses everything', async t => {
    await watchCalls(t, dataFolder, call => call.startsWith('unlink') ? errorOf('EROFS') : undefined)
    await t.rejects(store.write(chunks(), async () => { throw errorOf('ENOSPC') }), { code: 'insufficient_storage' })
  })
  const [name = ''] = await store.leftovers()
  t.strictSame((await filesIn(dataFolder)).sort(), [`audio/${store.relativePath(name)}`, `incoming/${name}`])
  await store.settle(name, false)
  t.strictSame(await filesIn(dataFolder), [])
})

t.test('an entry in incoming that does not go after the commit is no failure, and the next start takes it away', async t => {
  const { dataFolder, store } = await openStore(t)
  const fileName = await t.test('the disk refuses', async t => {
    const { commit } = await watchCalls(t, dataFolder, call => call.startsWith('unlink') ? errorOf('EIO') : undefined)
    t.match(await store.write(chunks(), commit), { sha256: SHA256 })
  }).then(async () => (await store.leftovers())[0] ?? '')
  await store.settle(fileName, true)
  t.strictSame(await filesIn(dataFolder), [`audio/${store.relativePath(fileName)}`])
})

t.test('a file system without hard links gets a move, and nothing else does', async t => {
  for (const code of ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']) {
    await t.test(code, async t => {
      const { dataFolder, store } = await openStore(t)
      const { calls, commit } = await watchCalls(t, dataFolder, call => call.startsWith('link') ? errorOf(code) : undefined)
      const { fileName } = await store.write(chunks(), commit)
      t.match(calls.join(), 'link audio/NN/NAME,rename audio/NN/NAME,open audio/NN,sync audio/NN,close audio/NN,commit')
      t.strictSame(await filesIn(dataFolder), [`audio/${store.relativePath(fileName)}`])
      await t.rejects(store.write(chunks(), async () => { throw errorOf('EIO') }), { code: 'EIO' })
      t.equal((await filesIn(dataFolder)).length, 1)
    })
  }
  await t.test('EIO', async t => {
    const { dataFolder, store } = await openStore(t)
    const { calls, commit } = await watchCalls(t, dataFolder, call => call.startsWith('link') ? errorOf('EIO') : undefined)
    await t.rejects(store.write(chunks(), commit), { code: 'EIO' })
    t.notOk(calls.some(call => call.startsWith('rename')))
  })
})

t.test('a file is read in any part: at once where it is small, else as a stream, and is closed after', async t => {
  const { dataFolder, store } = await openStore(t)
  const { fileName } = await store.write(chunks(), commit)
  const { calls, openHandles } = await watchCalls(t, dataFolder)
  for (const [first, last] of [[0, AUDIO.length - 1], [0, 0], [AUDIO.length - 1, AUDIO.length - 1], [1, 262_144], [1, 262_145], [10, 600_000]] as const) {
    const file = await store.open(fileName)
    t.equal(file?.fileBytes, AUDIO.length)
    const lent = file?.read(first, last)
    if (lent === undefined) throw new Error('no file')
    t.equal(lent.body instanceof Readable, last - first + 1 > 262_144)
    t.ok((await bytesOf(lent)).equals(AUDIO.subarray(first, last + 1)), `${first}-${last}`)
  }
  t.equal(openHandles(), 0)

  const unread = await store.open(fileName)
  unread?.close()
  const abandoned = (await store.open(fileName))?.read(0, AUDIO.length - 1).body
  if (!(abandoned instanceof Readable)) throw new TypeError('expected a stream')
  abandoned.destroy()
  await once(abandoned, 'close')
  t.equal(openHandles(), 0, 'not only a reader who stays to the end')
  t.equal(calls.filter(call => call.startsWith('open')).length, 8)

  t.equal(await store.open(NOWHERE), undefined)
})

t.test('a file that cannot be read is told as an error, and is closed', async t => {
  const { dataFolder, store } = await openStore(t)
  const { fileName } = await store.write(chunks(), commit)
  for (const failing of ['open', 'stat', 'read']) {
    await t.test(failing, async t => {
      const { openHandles } = await watchCalls(t, dataFolder, call => call.startsWith(failing) ? errorOf('EIO') : undefined)
      await t.rejects(store.open(fileName).then(file => file?.read(0, 9)), { code: 'EIO' })
      t.equal(openHandles(), 0)
    })
  }
  await fs.symlink('/etc/passwd', join(dataFolder, 'audio', fileName.slice(0, 2), fileName.slice(0, 2).padEnd(24, '0')))
  await t.rejects(store.open(fileName.slice(0, 2).padEnd(24, '0')), { code: 'ELOOP' }, 'a link is no file of ours')
})

t.test('what is removed is gone, and what was gone counts as removed', async t => {
  const { dataFolder, store } = await openStore(t)
  const [first, second, kept] = await Promise.all([1, 2, 3].map(async () => (await store.write(chunks(), commit)).fileName))
  if (first === undefined || second === undefined || kept === undefined) throw new Error('no files')
  await store.remove([first, NOWHERE, second])
  await store.remove([first])
  await store.remove([])
  t.strictSame(await filesIn(dataFolder), [`audio/${store.relativePath(kept)}`])
  t.equal(await store.open(first), undefined)
})

t.test('leftovers are only what this store would have made', async t => {
  const { dataFolder, store } = await openStore(t)
  await fs.mkdir(join(dataFolder, 'incoming', 'lost+found'))
  await fs.writeFile(join(dataFolder, 'incoming', '.nfs0001'), '')
  await fs.writeFile(join(dataFolder, 'incoming', NOWHERE), '')
  t.strictSame(await store.leftovers(), [NOWHERE])
  await store.settle(NOWHERE, false)
  await store.settle(NOWHERE, false)
  t.strictSame(await store.leftovers(), [])
  t.strictSame(await filesIn(dataFolder), ['incoming/.nfs0001'])
})

t.test('free space is told in bytes, and a folder that is gone stands in the way of writing', async t => {
  const { dataFolder, store } = await openStore(t)
  const { bavail, bsize, blocks } = await fs.statfs(dataFolder)
  const free = await store.freeBytes()
  t.ok(Number.isSafeInteger(free) && free >= 0 && free <= blocks * bsize, `${free} of ${bavail * bsize}`)
  await store.probe()
  for (const folder of ['audio', 'incoming']) {
    await fs.rm(join(dataFolder, folder), { recursive: true })
    await t.rejects(store.probe(), { code: 'ENOENT' })
    await fs.mkdir(join(dataFolder, folder))
  }
})

t.test('only what a full disk says is told as insufficient storage', async t => {
  for (const code of ['ENOSPC', 'EDQUOT', 'SQLITE_FULL']) {
    const cause = errorOf(code)
    t.match(explainFullDisk(cause), { code: 'insufficient_storage', message: 'The disk is full.', facts: { cause } })
  }
  const refusal = new AppError('quota_exceeded', 'No.')
  for (const other of [errorOf('EIO'), errorOf('SQLITE_BUSY'), new Error('ENOSPC'), refusal, undefined, 'ENOSPC', { code: 'ENOSPC' }, Object.assign(new Error('x'), { code: 28 })]) {
    t.equal(explainFullDisk(other), other)
  }
})

t.test('what a killed process had begun is ended at the next start: rows tell of what is there, and nothing else is', async t => {
  const config = readConfig({ DATA_DIR: join(t.testdir(), 'data') })
  const before = await openData(config, Date.now)
  await before.accountStore.add({ sipUri: 'sip:bob@sip.example.org', addressKey: 'bob', username: 'bob', domain: 'sip.example.org', createdAtMs: 1 })
  await before.close()

  const child = spawn(process.execPath, ['--import=tsx', fileURLToPath(new URL('../fixtures/cut-off.ts', import.meta.url)), config.dataFolder], { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  const [said] = await Promise.race([once(child.stdout, 'data'), exited])
  t.equal(String(said), 'ready\n')
  child.kill('SIGKILL')
  t.match(await exited, [null, 'SIGKILL'])
  t.equal((await filesIn(config.dataFolder)).filter(path => /^(incoming|audio)/.test(path)).length, 6, 'three in incoming, two placed, one to go')

  const data = await openData(config, Date.now)
  t.teardown(data.close)
  t.strictSame(await recover(data), { uploads: 3, removals: 1, failed: [] })
  const { voicemails } = await data.voicemailStore.list(1, {}, { before: undefined, limit: 10 })
  t.strictSame(voicemails.map(({ id, uploadedAtMs }) => [id, uploadedAtMs]), [['3-stored', 1], ['2-placed', null], ['1-half', null]])
  const fileName = voicemails[0]?.fileName ?? ''
  t.strictSame((await filesIn(config.dataFolder)).filter(path => /^(incoming|audio)/.test(path)), [join('audio', dirname(data.audioStore.relativePath(fileName)), basename(fileName))])
  t.equal((await read(data.audioStore, fileName)).length, 600_000)
  t.strictSame(await recover(data), { uploads: 0, removals: 0, failed: [] }, 'and it is done once')
})

async function read (store: AudioStore, fileName: string): Promise<Buffer> {
  const file = await store.open(fileName)
  const lent = file?.read(0, file.fileBytes - 1)
  if (lent === undefined) throw new Error('no file')
  return await bytesOf(lent)
}

/** What is in the lent memory, which then is given back. A piece of a stream is good only until the next one is asked for. */
async function bytesOf ({ body, giveBack }: Lent): Promise<Buffer> {
  const pieces: Buffer[] = []
  if (body instanceof Readable) {
    for await (const piece of body) pieces.push(Buffer.from(piece))
    if (!body.closed) await once(body, 'close')
  } else {
    pieces.push(Buffer.from(body))
  }
  giveBack()
  return Buffer.concat(pieces)
}

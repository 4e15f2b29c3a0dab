import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import ts from 'typescript'
import { openData } from '../../src/commands/data.js'
import { checkFiles } from '../../src/commands/upkeep.js'
import { readConfig } from '../../src/config.js'
import { recover } from '../../src/domain/recovery.js'
import { sample } from '../helper.js'
import type { Acknowledgement } from './dying.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const AUDIO_FILE = join(ROOT, 'test/fixtures/samples/ok/ulaw-8k.wav')
/** So many files and folders are to be older than the hour in which the check leaves them alone. */
const LATER_MS = 2 * 3600_000

/** The program as JavaScript: it is started some forty times, and a third of the time so. Returns the path of what dies. */
async function build (folder: string): Promise<string> {
  const sources = (await readdir(join(ROOT, 'src'), { recursive: true })).filter(name => name.endsWith('.ts')).map(name => join('src', name))
  for (const source of [...sources, 'test/crash/disk-steps.ts', 'test/crash/dying.ts']) {
    const { outputText } = ts.transpileModule(await readFile(join(ROOT, source), 'utf8'), {
      compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true }
    })
    const target = join(folder, source.replace(/\.ts$/, '.js'))
    await mkdir(dirname(target), { recursive: true })
    await writeFile(target, outputText)
  }
  await symlink(join(ROOT, 'drizzle'), join(folder, 'drizzle'))
  return join(folder, 'test/crash/dying.js')
}

const folder = t.testdir()
const program = await build(folder)
let deaths = 0
let uploads = 0
let deletions = 0

/** Runs until its death before that step; returns what was acknowledged. */
async function die (dataFolder: string, part: 'work' | 'recovery', step: number): Promise<Acknowledgement[]> {
  // Without coverage: what dies writes none.
  const { NODE_V8_COVERAGE, NODE_OPTIONS, ...env } = process.env
  const child = spawn(process.execPath, [program, dataFolder, part, String(step), AUDIO_FILE], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const [said, [code, signal]] = await Promise.all([text(child.stdout), once(child, 'exit')])
  if (signal !== 'SIGKILL') throw new Error(`expected a death, found the exit code ${code}`)
  deaths += 1
  return said.split('\n').filter(line => line !== '').map((line): Acknowledgement => JSON.parse(line))
}

/** What a start finds and makes of a data folder. Throws, in words, what is not as it was acknowledged. */
async function examine (dataFolder: string, acknowledged: Acknowledgement[]): Promise<string[]> {
  const config = readConfig({ DATA_DIR: dataFolder, MIN_FREE_DISK: '0', ADMIN_API_KEY: 'x'.repeat(32) })
  const data = await openData(config, () => Date.now() + LATER_MS)
  const wrong: string[] = []
  try {
    await recover(data)
    const { findings } = await checkFiles(config, data, { deep: true })
    wrong.push(...findings.map(({ kind, path }) => `${kind} ${path}`), ...(await readdir(join(dataFolder, 'incoming'))).map(name => `incoming/${name}`))
    for (const name of await data.voicemailStore.pendingRemovals()) wrong.push(`a removal of ${name} that is not done`)
    const last = acknowledged.findLast(({ did }) => did !== 'recovered')
    if (last === undefined || last.did === 'recovered') return wrong
    const row = await data.voicemailStore.findOf(last.account, last.id)
    const file = row?.fileName == null ? undefined : await data.audioStore.open(row.fileName)
    const audio = file === undefined ? undefined : file.read(0, file.fileBytes - 1).body
    const isWhole = Buffer.isBuffer(audio) && audio.equals(Buffer.concat([await sample('ok/ulaw-8k.wav'), Buffer.from(last.id)]))
    // What came after the last answer may have happened or not, but not by halves.
    if (last.did === 'opened' && (row === undefined || (row.uploadedAtMs !== null && !isWhole))) wrong.push('a slot that is not as it was, nor filled')
    if (last.did === 'stored' && row !== undefined && !isWhole) wrong.push('a voicemail that is lost')
    if (last.did === 'deleted' && row !== undefined) wrong.push('a voicemail that came back')
  } finally {
    await data.close()
  }
  return wrong
}

t.test('a process that dies at any step of an upload or a deletion that changes the disk leaves what was answered, whole, and nothing else', async t => {
  const dataFolder = join(folder, 'data')
  let steps = Infinity
  for (let step = 1; step <= steps; step++) {
    const acknowledged = await die(dataFolder, 'work', step)
    const last = acknowledged.at(-1)
    if (acknowledged.some(({ did }) => did === 'stored')) uploads += 1
    if (last?.did === 'deleted') {
      deletions += 1
      // Dead after all of them: there are no more.
      t.ok(step > 12 && step === last.steps + 1, `there are ${last.steps} steps`)
      steps = step
    }
    t.strictSame(await examine(dataFolder, acknowledged), [], `died before step ${step}, after ${last?.did}`)
  }
  t.ok(uploads > 3 && deletions > 0, 'some were answered')
})

/** A data folder in which a process died with one upload placed without a row, one with a row, one half written, and one deletion to do. */
async function broken (t: Test): Promise<string> {
  const dataFolder = join(folder, 'broken')
  const config = readConfig({ DATA_DIR: dataFolder, ADMIN_API_KEY: 'x'.repeat(32) })
  const data = await openData(config, Date.now)
  const account = await data.accountStore.add({ sipUri: 'sip:bob@sip.example.org', addressKey: 'bob', username: 'bob', domain: 'sip.example.org', createdAtMs: 0 })
  if (account === undefined) throw new Error('the account is there already')
  const { audioStore, voicemailStore } = data
  async function * chunks (): AsyncGenerator<Uint8Array> { yield await sample('ok/ulaw-8k.wav') }
  const place = async (name: string): Promise<string> => await audioStore.write(chunks(), async file => {
    const slot = { id: name, accountId: account.id, sipFrom: 'sip:a@example.org', contentType: 'audio/wav' as const, maxUploadBytes: 1e6, createdAtMs: 0, expiresAtMs: 1e15 }
    await voicemailStore.addSlot(slot, () => {})
    await voicemailStore.markStored(name, { ...file, durationMs: 1 }, 1)
    return file.fileName
  })
  const [known = '', unknown = '', deleted = ''] = [await place('known'), await place('unknown'), await place('deleted')]
  await voicemailStore.remove(account.id, 'deleted', { caller: 'test', address: null, atMs: 2 })
  await voicemailStore.remove(account.id, 'unknown', { caller: 'test', address: null, atMs: 2 })
  await voicemailStore.forgetRemovals([unknown])
  await data.close()
  for (const name of [known, unknown]) await cp(join(dataFolder, 'audio', name.slice(0, 2), name), join(dataFolder, 'incoming', name))
  await writeFile(join(dataFolder, 'incoming', 'half0written0half0written'.slice(0, 24)), 'RIFF')
  t.ok((await readdir(join(dataFolder, 'audio', deleted.slice(0, 2)))).includes(deleted), 'the file is there')
  return dataFolder
}

t.test('a process that dies at any step of the recovery leaves the rest of it to the next one', async t => {
  const source = await broken(t)
  let steps = Infinity
  for (let step = 1; step <= steps; step++) {
    const dataFolder = join(folder, `recovery-${step}`)
    await cp(source, dataFolder, { recursive: true })
    const [acknowledged] = await die(dataFolder, 'recovery', step)
    if (acknowledged?.did === 'recovered') {
      t.ok(step > 6 && step === acknowledged.steps + 1, `there are ${acknowledged.steps} steps`)
      steps = step
    }
    t.strictSame(await examine(dataFolder, []), [], `died before step ${step}`)
    const names = (await readdir(join(dataFolder, 'audio'), { recursive: true, withFileTypes: true })).filter(entry => entry.isFile())
    t.equal(names.length, 1, 'one voicemail is there')
  }
  t.comment(`${deaths} deaths, ${uploads} uploads and ${deletions} deletions acknowledged`)
})

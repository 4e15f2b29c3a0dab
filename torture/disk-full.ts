import { execFileSync } from 'node:child_process'
import { appendFileSync, existsSync, readdirSync, rmSync, statfsSync, truncateSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openData } from '../src/commands/data.js'
import { checkFiles } from '../src/commands/upkeep.js'
import { readConfig } from '../src/config.js'
import { randomFrom, someWav } from './rounds.js'
import { HEADERS, someAccount, someSlot, startServer, type RunningServer } from './server.js'

/** A data folder on a tmpfs of 24 MB (root, Linux), which is filled at every place of an upload, and emptied again. */
const folder = await mkdtemp(join(tmpdir(), 'voicemaild-full-'))
execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', folder])
const dataFolder = join(folder, 'data')
const ballast = join(folder, 'ballast')
const command = [process.execPath, '--import=tsx', 'src/main.ts'] as const
const random = randomFrom(1)
let wrong = 0
let attempts = 0

function expect (what: string, found: unknown, wanted: unknown): void {
  const isRight = JSON.stringify(found) === JSON.stringify(wanted)
  attempts += 1
  if (!isRight) wrong += 1
  console.log(`${isRight ? 'ok' : 'NOT OK'} ${what}${isRight ? '' : `: expected ${JSON.stringify(wanted)}, found ${JSON.stringify(found)}`}`)
}

const freeBytes = (): number => {
  const { bavail, bsize } = statfsSync(folder)
  return bavail * bsize
}

/** Fills the disk until so many bytes are free. */
function fill (leave = 0): void {
  const block = Buffer.alloc(4096, 1)
  for (;;) {
    const bytes = freeBytes() - leave
    if (bytes < block.length) return
    appendFileSync(ballast, bytes > 1024 * 1024 ? Buffer.alloc(1024 * 1024, 1) : block)
  }
}

const makeRoom = (): void => { truncateSync(ballast, 0) }
const audioFiles = (): number => readdirSync(join(dataFolder, 'audio'), { recursive: true, withFileTypes: true }).filter(entry => entry.isFile()).length
const incoming = (): number => readdirSync(join(dataFolder, 'incoming')).length

let server: RunningServer = await startServer(command, { DATA_DIR: dataFolder })
try {
  const account = await someAccount(server.url)
  const of = (id: string): string => `${server.url}/accounts/${account}/voicemails/${id}`
  const show = async (id: string): Promise<{ status: number, failure: string | undefined, url: string }> => {
    const response = await fetch(of(id), { headers: HEADERS })
    const { failure, download_url: url } = await response.json() as { failure: { code: string } | null, download_url: string }
    return { status: response.status, failure: failure?.code, url }
  }
  const put = async (path: string, body: Buffer<ArrayBuffer>): Promise<number> => {
    const response = await fetch(new URL(path, server.url), { method: 'PUT', body })
    await response.arrayBuffer()
    return response.status
  }
  const remove = async (id: string): Promise<number> => {
    const response = await fetch(of(id), { method: 'DELETE', headers: HEADERS })
    await response.arrayBuffer()
    return response.status
  }
  const hear = async (id: string): Promise<number> => {
    const { url } = await show(id)
    const response = await fetch(url)
    return (await response.arrayBuffer()).byteLength > 0 ? response.status : 0
  }
  const store = async (): Promise<string> => {
    const { id, path } = await someSlot(server.url, account)
    const status = await put(path, someWav(random))
    if (status !== 200) throw new Error(`an upload was answered with ${status}`)
    return id
  }
  const stored: string[] = []
  for (let n = 0; n < 30; n++) stored.push(await store())

  console.log('# full in the middle of the body, at its last bytes, at the folder, in SQLite: a block more is free each time')
  let filled = 0
  for (let blocks = 0; blocks < 80 && filled < 3; blocks += 2) {
    const { id, path } = await someSlot(server.url, account)
    const audio = someWav(() => 0.999)
    const before = audioFiles()
    fill(blocks * 4096)
    const status = await put(path, audio)
    const found = { status, files: audioFiles() - before, incoming: incoming() }
    expect(`an upload with ${blocks} blocks free`, found, { status: status === 200 ? 200 : 507, files: status === 200 ? 1 : 0, incoming: 0 })
    if (status === 200) filled += 1
    makeRoom()
    const again = await put(path, audio)
    expect('and with room again', [again, await hear(id), incoming()], [200, 200, 0])
    expect('which is deleted', await remove(id), 200)
  }

  console.log('# deleting on a full disk')
  fill()
  // Whatever SQLite had left over is used up too.
  let refused = 0
  for (let n = 0; n < 300 && refused === 0; n++) {
    const { status } = await someSlot(server.url, account)
    fill()
    if (status === 507) refused += 1
    else if (status !== 201) expect('a slot on a full disk', status, 507)
  }
  console.log(`# the reserve is ${existsSync(join(dataFolder, 'reserve')) ? 'held' : 'given up'}; a slot was refused: ${refused > 0}`)
  for (const id of stored.splice(0, 10)) {
    expect('a voicemail can be heard on the full disk', await hear(id), 200)
    expect('and deleted', await remove(id), 200)
    expect('and is gone', (await show(id)).status, 404)
    fill()
  }

  console.log('# a start on a full disk')
  await server.stop()
  fill()
  server = await startServer(command, { DATA_DIR: dataFolder })
  for (const id of stored.splice(0, 10)) {
    expect('a voicemail can be heard after a start', await hear(id), 200)
    expect('and deleted', await remove(id), 200)
    fill()
  }
  console.log('# and after a death on a full disk')
  server.child.kill('SIGKILL')
  fill()
  server = await startServer(command, { DATA_DIR: dataFolder })
  for (const id of stored.splice(0, 5)) {
    expect('a voicemail can be heard after a death', await hear(id), 200)
    expect('and deleted', await remove(id), 200)
    fill()
  }

  console.log('# room again, without a restart')
  makeRoom()
  for (let n = 0; n < 5; n++) stored.push(await store())
  for (const id of stored) expect('a voicemail can be heard', await hear(id), 200)
  await server.stop()
  rmSync(ballast)
  const config = readConfig({ DATA_DIR: dataFolder, ADMIN_API_KEY: HEADERS['x-api-key'] })
  const data = await openData(config, () => Date.now() + 2 * 3600_000)
  const { files, findings } = await checkFiles(config, data, { deep: true })
  await data.close()
  expect('check --deep', { files, findings, incoming: incoming() }, { files: stored.length, findings: [], incoming: 0 })
} finally {
  await server.stop()
  execFileSync('umount', [folder])
  await rm(folder, { recursive: true })
}
console.log(`# ${attempts} answers, ${wrong} wrong`)
if (wrong > 0) process.exitCode = 1

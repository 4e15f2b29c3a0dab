import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { openData } from '../src/commands/data.js'
import { checkFiles } from '../src/commands/upkeep.js'
import { readConfig } from '../src/config.js'
import { wavOf } from '../test/samples.js'
import { ADMIN_KEY, HEADERS, someAccount, startServer } from './server.js'

/** What a run has to show. */
export interface Tally {
  killed: number
  uploadsAcknowledged: number
  deletesAcknowledged: number
  backupsRestored: number
  /** Acknowledged uploads that were not there afterwards, byte for byte. */
  lost: number
  /** Acknowledged deletes that were there again. */
  comeBack: number
  /** Files that nobody knows, rows without a file, files in `incoming`. */
  leftBehind: number
}

export interface TortureOptions {
  /** What starts the program: `['node', 'dist/main.js']`. */
  command: readonly [string, ...string[]]
  /** A folder of the run's own. */
  folder: string
  rounds: number
  /** Between 0 and 1, always the same for the same seed. */
  random: () => number
  workers?: number
  onRound?: (tally: Readonly<Tally>) => void
}

/** Voicemails that are heard again after each death. */
const SHARE = 200
/** What is younger is left alone by the check. */
const LATER_MS = 2 * 3600_000

/** Runs a server under load and kills it (SIGKILL) at random moments; after each death everything that was acknowledged has to hold. */
export async function torture ({ command, folder, rounds, random, workers = 8, onRound }: TortureOptions): Promise<Tally> {
  const tally: Tally = { killed: 0, uploadsAcknowledged: 0, deletesAcknowledged: 0, backupsRestored: 0, lost: 0, comeBack: 0, leftBehind: 0 }
  const dataFolder = join(folder, 'data')
  const env = { ...process.env, DATA_DIR: dataFolder, PORT: '0', ADMIN_API_KEY: ADMIN_KEY, MIN_FREE_DISK: '0', LOG_LEVEL: 'error', ACCOUNT_OPEN_SLOTS: '0' }
  const config = (data: string) => readConfig({ ...env, DATA_DIR: data })
  /** SHA-256 by id of what was acknowledged, and what nobody can know: the answer never came. */
  const stored = new Map<string, string>()
  const deleted = new Set<string>()

  async function work (url: string, account: number, signal: AbortSignal): Promise<void> {
    const send = async (path: string, init: RequestInit): Promise<Response> => await fetch(new URL(path, url), { ...init, signal })
    while (!signal.aborted) {
      const slot = await (await send(`/accounts/${account}/voicemails`, {
        method: 'POST', headers: HEADERS, body: JSON.stringify({ sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' })
      })).json() as { id: string, upload_url: string }
      if (random() < 0.1) continue
      const audio = someWav(random)
      const answer = await send(slot.upload_url, { method: 'PUT', body: audio })
      if (answer.status !== 200) throw new Error(`an upload was answered with ${answer.status}`)
      await answer.arrayBuffer()
      tally.uploadsAcknowledged += 1
      stored.set(slot.id, createHash('sha256').update(audio).digest('hex'))
      if (random() < 0.5) {
        const [victim] = [...stored.keys()].slice(Math.floor(random() * stored.size))
        if (victim === undefined) continue
        stored.delete(victim)
        const gone = await send(`/accounts/${account}/voicemails/${victim}`, { method: 'DELETE', headers: { 'x-api-key': ADMIN_KEY } })
        await gone.arrayBuffer()
        if (gone.status !== 200) throw new Error(`a delete was answered with ${gone.status}`)
        tally.deletesAcknowledged += 1
        deleted.add(victim)
      }
    }
  }

  /** Looks at a share of what is stored, and at everything after the last round. */
  async function verify (url: string, account: number, all: boolean): Promise<void> {
    const share = all ? 1 : Math.min(1, SHARE / stored.size)
    for (const [id, sha256] of stored) {
      if (random() >= share) continue
      const shown = await fetch(`${url}/accounts/${account}/voicemails/${id}`, { headers: HEADERS })
      const { download_url: audioUrl } = await shown.json() as { download_url: string | null }
      const audio = audioUrl === null ? Buffer.alloc(0) : Buffer.from(await (await fetch(audioUrl)).arrayBuffer())
      if (createHash('sha256').update(audio).digest('hex') !== sha256) tally.lost += 1
    }
    for (const id of deleted) {
      const shown = await fetch(`${url}/accounts/${account}/voicemails/${id}`, { headers: HEADERS })
      await shown.arrayBuffer()
      if (shown.status !== 404) tally.comeBack += 1
    }
    deleted.clear()
    tally.leftBehind += await countFindings(dataFolder, all)
  }

  async function countFindings (folder: string, deep: boolean): Promise<number> {
    const data = await openData(config(folder), () => Date.now() + LATER_MS)
    try {
      const { findings } = await checkFiles(config(folder), data, { deep })
      return findings.length + (await readdir(join(folder, 'incoming')).catch(() => [])).length
    } finally {
      await data.close()
    }
  }

  async function runCommand (...args: string[]): Promise<number | null> {
    const child = spawn(command[0], [...command.slice(1), ...args], { env, stdio: 'ignore' })
    const [code] = await once(child, 'exit') as [number | null]
    return code
  }

  for (let round = 0; round <= rounds; round++) {
    const { child, url } = await startServer(command, { DATA_DIR: dataFolder })
    const account = await someAccount(url)
    if (round > 0) await verify(url, account, round === rounds)
    if (round === rounds) {
      child.kill('SIGTERM')
      await once(child, 'exit')
      break
    }
    const stop = new AbortController()
    const running = Array.from({ length: workers }, async () => { await work(url, account, stop.signal) })
    const upkeep = random() < 0.2 ? [runCommand('backup', join(folder, 'backup')), runCommand('sweep')] : []
    const settled = Promise.allSettled([...running, ...upkeep])
    await new Promise(resolve => { setTimeout(resolve, 100 + random() * 1400) })
    child.kill('SIGKILL')
    await once(child, 'exit')
    stop.abort()
    for (const outcome of (await settled).slice(0, workers)) {
      if (outcome.status === 'rejected' && /was answered with/.test(String(outcome.reason))) throw outcome.reason
    }
    tally.killed += 1
    if (upkeep.length > 0) {
      const restored = join(folder, 'restored')
      await rm(restored, { recursive: true, force: true })
      const code = await (spawnRestore(command, { ...env, DATA_DIR: restored }, join(folder, 'backup')))
      if (code !== 0) throw new Error(`restore ended with ${code}`)
      tally.leftBehind += await countFindings(restored, true)
      tally.backupsRestored += 1
    }
    onRound?.(tally)
  }
  return tally
}

async function spawnRestore (command: readonly [string, ...string[]], env: NodeJS.ProcessEnv, source: string): Promise<number | null> {
  const child = spawn(command[0], [...command.slice(1), 'restore', source], { env, stdio: ['ignore', 'ignore', 'inherit'] })
  const [code] = await once(child, 'exit') as [number | null]
  return code
}

/** A WAV of 1 KB to 200 KB, no two the same. */
export function someWav (random: () => number): Buffer<ArrayBuffer> {
  const file = wavOf(1000 + Math.floor(random() * 200_000))
  file.writeUInt32LE(Math.floor(random() * 2 ** 32), 44)
  return file
}

/** mulberry32: small, and the same on every machine. */
export function randomFrom (seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ state >>> 15, state | 1)
    t ^= t + Math.imul(t ^ t >>> 7, t | 61)
    return ((t ^ t >>> 14) >>> 0) / 2 ** 32
  }
}

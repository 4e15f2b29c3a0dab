import { randomInt } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Sqlite from 'better-sqlite3'
import { v7 as uuidv7 } from 'uuid'
import { createSignedUrls } from '../../src/domain/signed-url.js'
import type { Audio } from '../audio.js'
import type { Extent, Load } from '../client.js'
import { freePort } from '../../test/free-port.js'
import type { ServerCommand, ServerProcess, Stage } from '../stage.js'
import { run } from '../tools.js'

export interface ServerSettings {
  durability?: 'full' | 'relaxed'
  /** So much room on the disk is kept for every open slot: where thousands are opened it has to be less than the default. */
  maxUploadBytes?: number
}

const DEFAULT_MAX_UPLOAD_BYTES = 15_000_000
/** Room for what is uploaded here at 40 KB, and for thousands of slots. */
export const SMALL_MAX_UPLOAD_BYTES = 50_000

const ROOT = dirname(fileURLToPath(new URL('..', import.meta.url)))
/** What is measured: the build. */
export const PROGRAM = join(ROOT, 'dist', 'main.js')

export const DATABASE_FILE = 'voicemaild.sqlite'

const ADMIN_KEY = 'bench-admin-key-of-at-least-32-characters'
const SIGNING_KEY = 'bench-signing-key-of-at-least-32-characters'

export const JSON_HEADERS = { 'x-api-key': ADMIN_KEY, 'content-type': 'application/json' } as const
export const KEY_HEADERS = { 'x-api-key': ADMIN_KEY } as const
/** What a peer that does the same needs of them. */
export const PEER_SETTINGS = { ADMIN_API_KEY: ADMIN_KEY, SIGNING_KEY } as const
/** The body that opens a slot. */
export const NEW_SLOT = JSON.stringify({ sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' })

/** Settings as a user would make them, but for the limits that a benchmark would run into. */
function settingsOf (dataFolder: string, port: number, { durability = 'full', maxUploadBytes = DEFAULT_MAX_UPLOAD_BYTES }: ServerSettings = {}): Record<string, string> {
  return {
    DATA_DIR: dataFolder,
    PORT: String(port),
    ADMIN_API_KEY: ADMIN_KEY,
    SIGNING_KEY,
    LOG_LEVEL: 'warn',
    MIN_FREE_DISK: '0',
    ACCOUNT_OPEN_SLOTS: '0',
    DURABILITY: durability,
    MAX_UPLOAD_SIZE: String(maxUploadBytes)
  }
}

export function voicemaildCommand (dataFolder: string, port: number, settings?: ServerSettings): ServerCommand {
  return { program: process.execPath, args: [PROGRAM, 'serve'], env: settingsOf(dataFolder, port, settings), port }
}

export async function startVoicemaild (stage: Stage, dataFolder: string, settings?: ServerSettings): Promise<ServerProcess> {
  const { args, ...command } = voicemaildCommand(dataFolder, await freePort(), settings)
  return await stage.startServer({ ...command, args: [...stage.nodeArgs, ...args] })
}

/** Makes the data folder, with the program itself, and one account in it. Returns the account's id. */
export async function makeDataFolder (dataFolder: string): Promise<number> {
  const output = await runCommand(dataFolder, 'account', 'add', 'sip:bob@sip.example.org', '--json')
  const [id] = idsIn(output)
  if (id === undefined) throw new Error(`voicemaild account add: ${output}`)
  return id
}

/** Adds so many accounts to a data folder. Returns the ids of all but the first that was in it. */
export async function addAccounts (dataFolder: string, count: number): Promise<number[]> {
  const file = join(dataFolder, 'accounts.csv')
  await writeFile(file, Array.from({ length: count }, (_none, n) => `sip:user${n}@sip.example.org\n`).join(''))
  await runCommand(dataFolder, 'account', 'import', file)
  return idsIn(await runCommand(dataFolder, 'account', 'list', '--json')).slice(0, count)
}

async function runCommand (dataFolder: string, ...args: string[]): Promise<string> {
  return await run(process.execPath, [PROGRAM, ...args], { env: { ...process.env, ...settingsOf(dataFolder, 0) } })
}

const idsIn = (json: string): number[] => [...json.matchAll(/"id": (\d+)/g)].map(match => Number(match[1]))

export interface Slot { id: string, uploadPath: string }

/** How long prepared slots, and their URLs, are valid. */
const SLOT_MS = 24 * 3600_000

/** Opens slots before the server starts: straight in the database, because thousands are used up in a second. */
export function addSlots (dataFolder: string, account: number, count: number, maxUploadBytes = DEFAULT_MAX_UPLOAD_BYTES): Slot[] {
  const nowMs = Date.now()
  const expiresAtMs = Math.floor((nowMs + SLOT_MS) / 1000) * 1000
  const { sign } = signedUrls()
  const newId = createIds(nowMs)
  const slots = Array.from({ length: count }, () => {
    const id = newId()
    return { id, uploadPath: sign({ direction: 'upload', voicemailId: id, expiresAtMs }) }
  })
  const database = openRows(dataFolder)
  const insert = database.prepare(`INSERT INTO voicemails (id, account_id, sip_from, content_type, max_upload_bytes, created_at_ms, expires_at_ms)
    VALUES (?, ?, 'sip:alice@sip.example.org', 'audio/wav', ?, ?, ?)`)
  database.transaction(() => { for (const { id } of slots) insert.run(id, account, maxUploadBytes, nowMs, expiresAtMs) })()
  database.close()
  return slots
}

/** The rows of a data folder that no server serves. */
export function openRows (dataFolder: string): Sqlite.Database {
  const database = new Sqlite(join(dataFolder, DATABASE_FILE))
  database.pragma('synchronous = OFF')
  return database
}

export function signedUrls (): ReturnType<typeof createSignedUrls> {
  return createSignedUrls({ key: SIGNING_KEY, previousKeys: [], clock: Date.now })
}

/** Ids as the server makes them: those of one millisecond sort in the order in which they were made. */
export function createIds (msecs: number): () => string {
  let seq = randomInt(2 ** 30)
  return () => {
    seq += 1
    return uuidv7({ msecs, seq })
  }
}

const AT_ONCE = 16

/** Fills an account with voicemails, through the API. Returns the paths of their download URLs. */
export async function addVoicemails ({ port }: ServerProcess, account: number, audio: Buffer<ArrayBuffer>, count: number): Promise<string[]> {
  const url = `http://127.0.0.1:${port}`
  const paths: string[] = []
  let begun = 0
  async function addSome (): Promise<void> {
    while (begun < count) {
      begun += 1
      const slot = await jsonOf(await fetch(`${url}/accounts/${account}/voicemails`, { method: 'POST', headers: JSON_HEADERS, body: NEW_SLOT }))
      const voicemail = await jsonOf(await fetch(String(slot['upload_url']), { method: 'PUT', headers: { 'content-type': 'audio/wav' }, body: audio }))
      paths.push(new URL(String(voicemail['download_url'])).pathname)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, addSome))
  return paths
}

async function jsonOf (response: Response): Promise<Record<string, unknown>> {
  if (!response.ok) throw new Error(`voicemaild answered with ${response.status}: ${await response.text()}`)
  return await response.json() as Record<string, unknown>
}

/** Uploads of a run, each to a slot of its own. What the run leaves over is left for good: there are enough. */
export function uploadsTo (slots: Slot[], { file }: Audio): (extent: Extent) => Load {
  return ({ operations }) => ({
    method: 'PUT',
    headers: { 'content-type': 'audio/wav' },
    targets: slots.splice(0, operations).map(({ uploadPath }) => uploadPath),
    use: 'once',
    status: 200,
    bodyFile: file
  })
}

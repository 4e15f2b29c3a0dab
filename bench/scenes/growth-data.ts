import { createHash } from 'node:crypto'
import { copyFileSync, linkSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { customAlphabet } from 'nanoid'
import type { Audio } from '../audio.js'
import { addAccounts, createIds, makeDataFolder, openRows } from '../servers/voicemaild.js'

/** A data folder with many voicemails. */
export interface Filled {
  folder: string
  /** The account that is looked at, and the ids of its voicemails. */
  account: number
  ids: readonly string[]
}

export interface Filling {
  voicemails: number
  /** How many of these the account that is looked at has; the others have about a thousand each. */
  ofAccount: number
  audio: Audio
}

const OTHERS_HAVE = 1000
const DAY_MS = 24 * 3600_000
/** What ext4 takes is 65,000 links. */
const LINKS_PER_FILE = 60_000
const NAME_CHARACTERS = '0123456789abcdefghijklmnopqrstuvwxyz'
const newFileName = customAlphabet(NAME_CHARACTERS, 24)
/** Rows and links between two looks at what else there is to do. */
const BATCH = 10_000

/**
 * Fills an empty folder: the program itself makes the database and the accounts, then rows are inserted (its triggers count for the
 * accounts), and files are hard links to a few.
 */
export async function fillFolder (folder: string, { voicemails, ofAccount, audio }: Filling): Promise<Filled> {
  const account = await makeDataFolder(folder)
  const others = voicemails > ofAccount ? await addAccounts(folder, Math.ceil((voicemails - ofAccount) / OTHERS_HAVE)) : []
  const sources = writeSources(folder, audio, Math.ceil(voicemails / LINKS_PER_FILE))
  for (const first of NAME_CHARACTERS) {
    for (const second of NAME_CHARACTERS) mkdirSync(join(folder, 'audio', first + second), { recursive: true, mode: 0o700 })
  }
  const database = openRows(folder)
  // In the order of their ids, as they would have come: over the last thirty days.
  const nowMs = Date.now()
  const insert = database.prepare(`INSERT INTO voicemails
    (id, account_id, sip_from, content_type, max_upload_bytes, created_at_ms, expires_at_ms, uploaded_at_ms, read_at_ms, file_name, file_bytes, duration_ms, sha256)
    VALUES (?, ?, 'sip:alice@sip.example.org', 'audio/wav', 15000000, ?, ?, ?, ?, ?, ?, ?, ?)`)
  const sha256 = createHash('sha256').update(audio.bytes).digest('hex')
  const durationMs = Math.round((audio.bytes.length - 44) / 16)
  const ids: string[] = []
  const every = voicemails / ofAccount

  const insertOne = (n: number): void => {
    const createdAtMs = Math.floor(nowMs - 30 * DAY_MS * (1 - n / voicemails))
    const id = createIds(createdAtMs)()
    const isOfAccount = ids.length <= n / every
    if (isOfAccount) ids.push(id)
    // Every second one of the account that is looked at.
    const isRead = Math.floor(n / every) % 2 === 0
    const fileName = newFileName()
    linkSync(sources[n % sources.length] ?? '', join(folder, 'audio', fileName.slice(0, 2), fileName))
    insert.run(
      id, isOfAccount ? account : others[n % others.length], createdAtMs, createdAtMs + 3600_000, createdAtMs + 20_000,
      isRead ? createdAtMs + DAY_MS : null, fileName, audio.bytes.length, durationMs, sha256
    )
  }
  for (let begun = 0; begun < voicemails; begun += BATCH) {
    database.transaction(() => { for (let n = begun; n < Math.min(begun + BATCH, voicemails); n++) insertOne(n) })()
    await setImmediate()
  }
  database.close()
  return { folder, account, ids }
}

/** Outside of `audio`, where the program does not look. */
function writeSources (folder: string, { file }: Audio, count: number): string[] {
  const place = join(folder, 'sources')
  mkdirSync(place)
  return Array.from({ length: count }, (_none, at) => {
    const path = join(place, String(at))
    copyFileSync(file, path)
    return path
  })
}

import { constants } from 'node:fs'
import { chmod, copyFile, link, lstat, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { layoutOf } from './audio-layout.js'
import { DATABASE_FILE } from './database.js'
import { syncPath } from './disk-sync.js'
import { lockFolder } from './folder-lock.js'
import { hasCode, undefinedIfGone } from './fs-errors.js'

/** What a backup or a restore did. `missing` are files that rows name and nobody has. */
export interface Copied { files: number, copied: number, removed: number, missing: string[] }

export interface BackupOptions {
  dataFolder: string
  /** Writes a consistent copy of the rows to a path, while others write. */
  copyRows: (path: string) => Promise<void>
  /** Whether a row of the running database still names the file. */
  isFileKnown: (fileName: string) => Promise<boolean>
  onProgress?: (done: number, total: number) => void
}

/** A folder that is not what it should be; the message is for people. */
export class FolderError extends Error {
  override readonly name = 'FolderError'
}

const MARK = 'voicemaild-backup.json'
const SECRETS = ['signing-key', 'admin-api-key']
/** What SQLite may leave beside a database when its process is killed. */
const BESIDE_ROWS = ['', '-journal', '-wal', '-shm']

/**
 * Copies a data folder into `target`, which is empty or an older backup. First the rows, then the files that they name; the
 * older rows give way only when all of those are there, so that whenever this is cut off, one whole backup is left.
 */
export async function backUp (target: string, options: BackupOptions): Promise<Copied> {
  await mkdir(target, { recursive: true, mode: 0o700 })
  const names = await readdir(target)
  if (!names.includes(MARK)) {
    if (names.some(name => name !== `${MARK}.new`)) throw new FolderError(`${target} is neither empty nor a backup of voicemaild.`)
    await writeMark(target, false)
  }
  // Two at once would take away what the other has brought.
  const unlock = lockFolder(target)
  if (unlock === undefined) throw new FolderError(`Another backup into ${target} is under way.`)
  try {
    return await backUpInto(target, options)
  } finally {
    unlock()
  }
}

async function backUpInto (target: string, { dataFolder, copyRows, isFileKnown, onProgress }: BackupOptions): Promise<Copied> {
  const from = layoutOf(dataFolder)
  const to = layoutOf(target)
  const rows = join(target, `${DATABASE_FILE}.new`)
  for (const beside of BESIDE_ROWS) await rm(rows + beside, { force: true })
  // Made here, because SQLite would make it with whatever mode it is left.
  await writeFile(rows, '', { mode: 0o600, flag: 'wx' })
  await copyRows(rows)
  const result: Copied = { files: 0, copied: 0, removed: 0, missing: [] }
  const kept = new Set<string>()
  const database = new Sqlite(rows)
  try {
    database.pragma('journal_mode = DELETE')
    database.exec('DELETE FROM removals')
    const files = filesOf(database)
    const forget = database.prepare('DELETE FROM voicemails WHERE file_name = ?')
    for (const [done, { fileName, fileBytes, isLost }] of files.entries()) {
      onProgress?.(done, files.length)
      const outcome = await bring(from.audioPath(fileName), to.audioPath(fileName), fileBytes, true)
      if (outcome === 'missing') {
        // Deleted since the rows were copied, or lost; what `check --repair` has marked is no news.
        if (!await isFileKnown(fileName)) forget.run(fileName)
        else if (!isLost) result.missing.push(fileName)
        continue
      }
      kept.add(fileName)
      result.files += 1
      if (outcome === 'copied') result.copied += 1
    }
    onProgress?.(files.length, files.length)
  } finally {
    database.close()
  }
  for (const secret of SECRETS) await bring(join(dataFolder, secret), join(target, secret), undefined, false)
  await syncFolders(to.audioFolder)
  await syncPath(rows)
  await rename(rows, join(target, DATABASE_FILE))
  await syncPath(target)
  result.removed = await removeOthers(to.audioFolder, kept)
  await writeMark(target, true)
  return result
}

/** Copies a backup into a data folder, which is empty. The rows come last: until then it is no data folder. */
export async function restore (source: string, dataFolder: string, onProgress?: (done: number, total: number) => void): Promise<Copied> {
  const mark = await readFile(join(source, MARK), 'utf8').catch(undefinedIfGone)
  if (mark === undefined || !mark.includes('"complete":true')) throw new FolderError(`${source} is no complete backup of voicemaild.`)
  await requireRows(join(source, DATABASE_FILE))
  await mkdir(dataFolder, { recursive: true, mode: 0o700 })
  if ((await readdir(dataFolder)).some(name => name !== '.gitkeep')) throw new FolderError(`${dataFolder} is not empty.`)

  const from = layoutOf(source)
  const to = layoutOf(dataFolder)
  const result: Copied = { files: 0, copied: 0, removed: 0, missing: [] }
  const rows = join(dataFolder, `${DATABASE_FILE}.new`)
  await bring(join(source, DATABASE_FILE), rows, undefined, false)
  const database = new Sqlite(rows)
  try {
    const files = filesOf(database)
    for (const [done, { fileName, fileBytes, isLost }] of files.entries()) {
      onProgress?.(done, files.length)
      if (await bring(from.audioPath(fileName), to.audioPath(fileName), fileBytes, false) !== 'missing') result.copied += 1
      else if (!isLost) result.missing.push(fileName)
    }
    onProgress?.(files.length, files.length)
    result.files = result.copied
  } finally {
    database.close()
  }
  for (const secret of SECRETS) await bring(join(source, secret), join(dataFolder, secret), undefined, false)
  await mkdir(to.audioFolder, { recursive: true, mode: 0o700 })
  await syncFolders(to.audioFolder)
  await rename(rows, join(dataFolder, DATABASE_FILE))
  await syncPath(dataFolder)
  return result
}

/** `isLost` where `check --repair` has marked it. */
interface NamedFile { fileName: string, fileBytes: number, isLost: number }

function filesOf (database: Sqlite.Database): NamedFile[] {
  return database.prepare<[], NamedFile>(
    "SELECT file_name AS fileName, file_bytes AS fileBytes, failure_code IS 'audio_lost' AS isLost FROM voicemails WHERE file_name IS NOT NULL"
  ).all()
}

/**
 * Throws where the rows of a backup cannot be read, or name what this program never made: a backup may come from anywhere, and a server
 * would go by those names, out of its folder, to read and to remove.
 */
async function requireRows (path: string): Promise<void> {
  if ((await lstat(path).catch(undefinedIfGone))?.isFile() !== true) throw new FolderError(`${path} cannot be read as the rows of a backup (no file).`)
  let names: string[]
  try {
    const database = new Sqlite(path, { readonly: true, fileMustExist: true })
    try {
      names = database.prepare<[], string>('SELECT file_name FROM voicemails WHERE file_name IS NOT NULL UNION ALL SELECT file_name FROM removals').pluck().all()
    } finally {
      database.close()
    }
  } catch (error) {
    throw new FolderError(`${path} cannot be read as the rows of a backup (${error instanceof Error ? error.message : 'unreadable'}).`)
  }
  const strange = names.find(name => !/^[0-9a-z]{24}$/.test(name))
  if (strange !== undefined) throw new FolderError(`${path} names a file that voicemaild did not make: ${JSON.stringify(strange)}.`)
}

/**
 * Brings one file over. One of the right size that is there already is the same file, because names are never used twice; a hard
 * link or a reflink saves the copying where the file system has them.
 */
async function bring (from: string, to: string, bytes: number | undefined, mayLink: boolean): Promise<'there' | 'copied' | 'missing'> {
  const source = await lstat(from).catch(undefinedIfGone)
  if (source?.isFile() !== true) return 'missing'
  if (bytes !== undefined && (await lstat(to).catch(undefinedIfGone))?.size === bytes) return 'there'
  await mkdir(dirname(to), { recursive: true, mode: 0o700 })
  const draft = `${to}.new`
  await rm(draft, { force: true })
  if (!(mayLink && await link(from, draft).then(() => true, notLinked))) {
    try {
      await copyFile(from, draft, constants.COPYFILE_FICLONE)
    } catch (error) {
      if (undefinedIfGone(error) === undefined) return 'missing'
    }
    // A backup that came from elsewhere may have brought other modes.
    await chmod(draft, 0o600)
    await syncPath(draft)
  }
  await rename(draft, to)
  // Where both are one file already, rename leaves its source (POSIX).
  await rm(draft, { force: true })
  return 'copied'
}

function notLinked (error: unknown): boolean {
  if (hasCode(error, 'EXDEV', 'EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK', 'ENOENT')) return false
  throw error
}

async function removeOthers (audioFolder: string, kept: ReadonlySet<string>): Promise<number> {
  let removed = 0
  for (const entry of await readdir(audioFolder, { recursive: true, withFileTypes: true }).catch(undefinedIfGone) ?? []) {
    if (entry.isDirectory() || kept.has(entry.name)) continue
    await rm(join(entry.parentPath, entry.name))
    removed += 1
  }
  return removed
}

async function writeMark (folder: string, complete: boolean): Promise<void> {
  const draft = join(folder, `${MARK}.new`)
  await writeFile(draft, `${JSON.stringify({ complete })}\n`, { mode: 0o600 })
  await syncPath(draft)
  await rename(draft, join(folder, MARK))
  await syncPath(folder)
}

async function syncFolders (audioFolder: string): Promise<void> {
  for (const shard of await readdir(audioFolder).catch(undefinedIfGone) ?? []) await syncPath(join(audioFolder, shard))
  await syncPath(audioFolder).catch(undefinedIfGone)
}

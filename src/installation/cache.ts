import { randomUUID } from 'node:crypto'
import { closeSync, constants, fstatSync, lstatSync, mkdirSync, mkdtempSync, openSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import type { EmbeddedFolder } from './embedded.js'

/** What others than the owner may do to a file or a folder: write. */
const WRITE_BY_OTHERS = 0o022
const STICKY = 0o1000

/**
 * Puts files that are inside the executable into a folder, and hands it over. It is named by the SHA-256 of its contents, in a cache
 * that is this user's alone: the first of `caches` that will do, or one in the folder of temporary files. Nothing is believed of what
 * is there already: every file is compared, byte by byte, and replaced where it differs. Where a folder will not do, be it that it
 * cannot be written, that others could, or that `use` throws (a library that must not be loaded from there), the next is tried.
 * Throws one line that tells of all of them where none will do.
 */
export function placeFiles<T> (embedded: EmbeddedFolder, caches: readonly string[], use: (folder: string) => T): T {
  const refused: string[] = []
  const shared = join(tmpdir(), `voicemaild-${process.geteuid?.() ?? ''}`)
  for (const cache of [...caches, shared, undefined]) {
    try {
      return use(fill(join(cache === undefined ? makeTemporary() : makeCache(cache), embedded.sha256), embedded))
    } catch (error) {
      refused.push(`${cache ?? join(tmpdir(), 'voicemaild-*')} (${error instanceof Error ? error.message : String(error)})`)
    }
  }
  // Without a `code`: it is no fault of the data folder.
  throw new Error(`No folder for what voicemaild unpacks: set XDG_CACHE_HOME to one that only its user may write, on a file system without noexec. Tried: ${refused.join('; ')}.`)
}

/** A cache that stays. Of what is above it, the last folder is made where it is missing. */
function makeCache (cache: string): string {
  makeFolder(dirname(cache))
  const above = realpathSync(dirname(cache))
  requireSafe(above)
  const folder = join(above, basename(cache))
  makeOwn(folder)
  return folder
}

/** For this process alone, until it ends: another user has taken the names of those that stay. */
function makeTemporary (): string {
  requireSafe(realpathSync(tmpdir()))
  const folder = mkdtempSync(join(realpathSync(tmpdir()), 'voicemaild-'))
  process.once('exit', () => { rmSync(folder, { recursive: true, force: true }) })
  return folder
}

function fill (folder: string, { files }: EmbeddedFolder): string {
  makeOwn(folder)
  for (const { path, content } of files) {
    const names = path.split('/')
    for (const [depth] of names.slice(1).entries()) makeOwn(join(folder, ...names.slice(0, depth + 1)))
    if (!holds(join(folder, path), content)) replace(join(folder, path), content)
  }
  return folder
}

/** Whether a file is this user's alone to change, and has these bytes and no others: not a link, not one cut off, not one changed. */
function holds (path: string, content: Uint8Array): boolean {
  let file
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch {
    return false
  }
  try {
    const { uid, mode, size, nlink } = fstatSync(file)
    const isOwn = fstatSync(file).isFile() && uid === process.geteuid?.() && (mode & WRITE_BY_OTHERS) === 0 && nlink === 1
    return isOwn && size === content.length && readFileSync(file).equals(content)
  } finally {
    closeSync(file)
  }
}

/** In one step, so that whoever starts at the same time finds the old file or the new one, whole. */
function replace (path: string, content: Uint8Array): void {
  const unfinished = `${path}.${randomUUID()}`
  try {
    writeFileSync(unfinished, content, { flag: 'wx', mode: 0o600 })
    renameSync(unfinished, path)
  } catch (error) {
    rmSync(unfinished, { force: true })
    throw error
  }
}

function makeOwn (folder: string): void {
  makeFolder(folder)
  requireOwn(folder)
}

function makeFolder (folder: string): void {
  try {
    mkdirSync(folder, { mode: 0o700 })
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && (error.code === 'EEXIST' || error.code === 'EROFS'))) throw error
  }
}

function requireOwn (folder: string): void {
  const found = lstatSync(folder)
  if (!found.isDirectory()) throw new Error('not a folder')
  if (found.uid !== process.geteuid?.()) throw new Error("another user's")
  if ((found.mode & WRITE_BY_OTHERS) !== 0) throw new Error('others may write it')
}

/** Whoever may rename a folder above may put another in its place. In one that is sticky, as /tmp is, only its owner may. */
function requireSafe (folder: string): void {
  const { uid, mode } = lstatSync(folder)
  if (uid !== 0 && uid !== process.geteuid?.()) throw new Error(`${folder} is another user's`)
  if ((mode & WRITE_BY_OTHERS) !== 0 && (mode & STICKY) === 0) throw new Error(`others may write ${folder}`)
  if (dirname(folder) !== folder) requireSafe(dirname(folder))
}

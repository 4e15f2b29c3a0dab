import { dirname } from 'node:path'
import type { Step } from './disk-steps.js'

interface Inode { writtenBytes: number, syncedBytes: number }
/** `now`: what a look at the folder shows. `after`: what is certain to be there after a power cut, and `mayLast`: what can be there. */
interface Entry { now: Inode | 'folder' | undefined, after: Inode | 'folder' | undefined, mayLast: boolean }

/**
 * A model of a disk that forgets whatever was not synced: bytes of a file until `datasync`, and entries of a folder, added or removed, until
 * that folder's `sync`. It is told of every step after it was taken.
 */
export class ForgetfulDisk {
  readonly #entries = new Map<string, Entry>()

  constructor (folders: string[]) {
    for (const folder of folders) this.#entries.set(folder, { now: 'folder', after: 'folder', mayLast: true })
  }

  take ({ operation, path, from = '', bytes = 0 }: Step): void {
    const entry = this.#entryOf(path)
    const file = entry.now === 'folder' ? undefined : entry.now
    if (operation === 'open' && entry.now === undefined) entry.now = { writtenBytes: 0, syncedBytes: 0 }
    if (operation === 'mkdir') entry.now = 'folder'
    if (operation === 'write' && file !== undefined) file.writtenBytes += bytes
    if ((operation === 'datasync' || operation === 'sync') && file !== undefined) file.syncedBytes = file.writtenBytes
    if (operation === 'sync' && file === undefined) {
      for (const [inside, synced] of this.#entries) {
        if (dirname(inside) !== path) continue
        synced.after = synced.now
        synced.mayLast = synced.now !== undefined
      }
    }
    if (operation === 'link') entry.now = this.#entryOf(from).now
    if (operation === 'unlink') entry.now = undefined
    entry.mayLast ||= entry.now !== undefined
  }

  /** Bytes of a file that a power cut cannot take; undefined where it can take the file. */
  lastingBytes (path: string): number | undefined {
    const inode = this.#entries.get(path)?.after
    return inode !== undefined && inode !== 'folder' && this.#lasts(dirname(path)) ? inode.syncedBytes : undefined
  }

  /** Whether a file is gone now, and stays so after a power cut. */
  isGoneForGood (path: string): boolean {
    const { now, mayLast = false } = this.#entries.get(path) ?? {}
    return now === undefined && !mayLast
  }

  isThere (path: string): boolean {
    return this.#entries.get(path)?.now !== undefined
  }

  #lasts (folder: string): boolean {
    const entry = this.#entries.get(folder)
    return entry === undefined || (entry.after === 'folder' && this.#lasts(dirname(folder)))
  }

  #entryOf (path: string): Entry {
    const entry = this.#entries.get(path) ?? { now: undefined, after: undefined, mayLast: false }
    this.#entries.set(path, entry)
    return entry
  }
}

import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { access, chmod, mkdir, readdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Readable } from 'node:stream'
import { customAlphabet } from 'nanoid'
import { layoutOf, shardOf } from './audio-layout.js'
import { explainFullDisk } from './disk-full.js'
import { hasCode, undefinedIfGone } from './fs-errors.js'
import { disk, streamFile } from './disk.js'
import { createFolderSync, type FolderSync } from './disk-sync.js'
import { createGathering } from './gathered-writes.js'
import { createLending } from './lent-buffers.js'

/** A file that has been written and synced, and what was counted on the way. `sha256` is hexadecimal. */
export interface WrittenFile { fileName: string, fileBytes: number, sha256: string }

/** A file open for reading; whoever opened it calls `read` or `close`, once. */
export interface OpenFile {
  fileBytes: number
  /** The bytes from `first` to `last`, both included. */
  read: (first: number, last: number) => Lent
  close: () => void
}

/** Bytes of a file, at once where they are few, else as a stream to be piped, which closes the file at its end. */
export interface Lent {
  body: Buffer | Readable
  /** To be called, once, when nothing of the body waits to be written any more: others get its memory. */
  giveBack: () => void
}

/** The audio files, each under a name that this store made. */
export interface AudioStore {
  /**
   * The write sequence. `chunks` are written to a new file in `incoming` while they are counted and hashed; the file is synced,
   * linked to its place under `audio`, and the folder synced; then `commit` writes the row, and its result is the answer. If
   * anything on the way throws, `commit` included, the file is gone again. A crash leaves an entry in `incoming` that
   * tells the next start what to look at.
   */
  write: <T>(chunks: AsyncIterable<Uint8Array>, commit: (file: WrittenFile) => Promise<T>) => Promise<T>
  /** Undefined where there is no such file. */
  open: (fileName: string) => Promise<OpenFile | undefined>
  /** Where the file is below the folder of audio, for a server that sends it itself. */
  relativePath: (fileName: string) => string
  /** Takes files away; those already gone count as done. Resolves when the disk knows. */
  remove: (fileNames: string[]) => Promise<void>
  /** Names of files that a dead process was writing. Only for whoever has the folder's lock. */
  leftovers: () => Promise<string[]>
  /** Ends a leftover: the file stays where its row is known, else it goes too. */
  settle: (fileName: string, isKnown: boolean) => Promise<void>
  /** Bytes that can still be written. */
  freeBytes: () => Promise<number>
  /** Throws what stands in the way of writing. */
  probe: () => Promise<void>
}

export interface AudioStoreOptions {
  dataFolder: string
  /** `full` syncs file and folder before `commit`; `relaxed` leaves that to the operating system. */
  durability: 'full' | 'relaxed'
  /** Whether the group of this process may read what is stored: nginx, where it sends the files. Unless given nobody else may. */
  groupReads?: boolean
}

/**
 * Up to here bytes are read while everybody waits, as nginx does: what was recorded or asked for lately is in the system's memory, and costs
 * less to copy than to hand to a thread. More of them are streamed in pieces of this size, by threads.
 */
const READ_AT_ONCE_BYTES = 256 * 1024

/** Lower case only, for file systems that do not tell the cases apart; 22 characters beside the shard's two are 113 bits. */
const randomName = customAlphabet('0123456789abcdefghijklmnopqrstuvwxyz', 22)
const NAME = /^[0-9a-z]{24}$/
/** So many files go to one folder, and then as many to another: those that are written at the same time share the syncs of it. */
const FILES_IN_A_ROW = 256

/** Opens the folders `incoming` and `audio` of a data folder, making what is missing. */
export async function openAudioStore ({ dataFolder, durability, groupReads = false }: AudioStoreOptions): Promise<AudioStore> {
  const { incomingFolder, audioFolder, incomingPath, relativePath, audioPath } = layoutOf(dataFolder)
  const syncFolder: FolderSync = durability === 'full' ? createFolderSync() : async () => {}
  const newName = createNames()

  await mkdir(incomingFolder, { recursive: true, mode: 0o700 })
  await mkdir(audioFolder, { recursive: true, mode: 0o700 })
  if (groupReads) {
    // Through the data folder, where the names of other files are not for the group to list.
    await allow(dataFolder, 0o010)
    await allow(audioFolder, 0o050)
  }

  const gather = createGathering()
  const lend = createLending()

  async function writeIncoming (fileName: string, chunks: AsyncIterable<Uint8Array>): Promise<WrittenFile> {
    const fd = await disk.open(incomingPath(fileName), 'wx', groupReads ? 0o640 : 0o600)
    const gathered = gather(async pieces => { await disk.write(fd, pieces) })
    try {
      const hash = createHash('sha256')
      let fileBytes = 0
      for await (const chunk of chunks) {
        hash.update(chunk)
        fileBytes += chunk.byteLength
        await gathered.add(chunk)
      }
      await gathered.flush()
      if (durability === 'full') await disk.datasync(fd)
      return { fileName, fileBytes, sha256: hash.digest('hex') }
    } finally {
      gathered.end()
      disk.close(fd)
    }
  }

  /** Folders below `audio` that a power cut does not take any more. One that another upload, or a dead process, made may not be. */
  const lastingFolders = new Set<string>()

  async function place (fileName: string): Promise<void> {
    const folder = dirname(audioPath(fileName))
    for (const isKnown of [lastingFolders.has(folder), false]) {
      if (!isKnown) {
        await mkdir(folder, { recursive: true, mode: 0o700 })
        if (groupReads) await allow(folder, 0o050)
        await syncFolder(audioFolder)
        lastingFolders.add(folder)
      }
      try {
        await linkOrRename(incomingPath(fileName), audioPath(fileName))
        break
      } catch (error) {
        // Somebody has tidied up: it is made anew.
        if (!isKnown || !hasCode(error, 'ENOENT')) throw error
      }
    }
    await syncFolder(folder)
  }

  async function discard (fileName: string): Promise<void> {
    await unlinkIfThere(audioPath(fileName))
    await unlinkIfThere(incomingPath(fileName))
  }

  /** Files that the disk would not let go: it is asked again, one with each upload, and at the next start. */
  const refused = new Set<string>()

  async function tryDiscard (fileName: string): Promise<void> {
    await discard(fileName).then(() => { refused.delete(fileName) }, () => { refused.add(fileName) })
  }

  return {
    relativePath,
    write: async (chunks, commit) => {
      const fileName = newName()
      const [leftOver] = refused
      if (leftOver !== undefined) await tryDiscard(leftOver)
      let result
      try {
        const file = await writeIncoming(fileName, chunks)
        await place(fileName)
        result = await commit(file)
      } catch (error) {
        await tryDiscard(fileName)
        throw explainFullDisk(error)
      }
      // The voicemail is stored: should this entry not go, it goes with the voicemail, or at the next start.
      await disk.unlink(incomingPath(fileName)).catch(() => {})
      return result
    },
    open: async fileName => {
      const fd = openIfThere(audioPath(fileName))
      if (fd === undefined) return undefined
      const close = (): void => { disk.close(fd) }
      try {
        return {
          fileBytes: disk.size(fd),
          read: (first, last) => {
            const length = last - first + 1
            if (length > READ_AT_ONCE_BYTES) {
              const { bytes, giveBack } = lend(READ_AT_ONCE_BYTES)
              const body = streamFile(fd, first, last, bytes)
              // A read may be under way still when the listener has gone.
              const giveBackClosed = (): void => {
                if (body.closed) giveBack()
                else body.once('close', giveBack)
              }
              return { body, giveBack: giveBackClosed }
            }
            try {
              const { bytes, giveBack } = lend(length)
              return { body: bytes.subarray(0, disk.readNow(fd, bytes, first)), giveBack }
            } finally {
              close()
            }
          },
          close
        }
      } catch (error) {
        close()
        throw error
      }
    },
    remove: async fileNames => {
      try {
        for (const fileName of fileNames) await discard(fileName)
        for (const folder of new Set(fileNames.map(fileName => dirname(audioPath(fileName))))) {
          await syncFolder(folder).catch(undefinedIfGone)
        }
      } catch (error) {
        throw explainFullDisk(error)
      }
    },
    leftovers: async () => (await readdir(incomingFolder)).filter(name => NAME.test(name)),
    settle: async (fileName, isKnown) => {
      if (isKnown) await unlinkIfThere(incomingPath(fileName))
      else await discard(fileName)
    },
    freeBytes: async () => disk.freeBytes(dataFolder),
    probe: async () => {
      for (const folder of [incomingFolder, audioFolder]) await access(folder, constants.R_OK | constants.W_OK | constants.X_OK)
    }
  }
}

function openIfThere (path: string): number | undefined {
  try {
    return disk.openNow(path)
  } catch (error) {
    return undefinedIfGone(error)
  }
}

/** A file system without hard links gets the plain move, and a crash between it and the row leaves a file that no row knows. */
async function linkOrRename (from: string, to: string): Promise<void> {
  try {
    await disk.link(from, to)
  } catch (error) {
    if (!hasCode(error, 'EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS')) throw error
    await disk.rename(from, to)
  }
}

/** Names of files, the folder of each in front; see FILES_IN_A_ROW. */
function createNames (): () => string {
  let shard = ''
  let left = 0
  return () => {
    if (left === 0) {
      shard = shardOf(randomName())
      left = FILES_IN_A_ROW
    }
    left -= 1
    return shard + randomName()
  }
}

/** Adds permissions to a folder's. What the operator has given already is left alone: the folder may be another's. */
async function allow (folder: string, bits: number): Promise<void> {
  const { mode } = await stat(folder)
  if ((mode & bits) !== bits) await chmod(folder, mode & 0o7777 | bits)
}

async function unlinkIfThere (path: string): Promise<void> {
  await disk.unlink(path).catch(undefinedIfGone)
}

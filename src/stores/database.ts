import { closeSync, existsSync, openSync } from 'node:fs'
import { dirname, join } from 'node:path'
import Sqlite from 'better-sqlite3'
import { drizzle, type BetterSQLite3Database } from 'drizzle-orm/better-sqlite3'
import { migrate } from 'drizzle-orm/better-sqlite3/migrator'
import { migrationsFolder } from '../installation.js'
import { createDiskReserve } from './disk-reserve.js'
import { preparing, type Preparing } from './prepared.js'
import { createWriteQueue, type WriteQueue } from './write-queue.js'

/** The rows of one data folder: reads go through `read`, everything that changes them through `write`. */
export interface Database {
  /** Prepare queries from this; run only those that read. */
  read: BetterSQLite3Database
  /** For what is run with every request. */
  prepare: Preparing
  /** Runs a change inside a transaction; its result comes after the COMMIT is on the disk. */
  write: WriteQueue['write']
  /** Throws what stands in the way of writing, without changing a thing. */
  probe: () => void
  /** Writes a consistent copy to a path, while others write (SQLite's online backup). */
  copyTo: (path: string) => Promise<void>
  /** Waits for the writes under way, folds the write-ahead log into the database, and closes it. */
  close: () => Promise<void>
}

export interface DatabaseOptions {
  /** `full`: a COMMIT waits for the disk. `relaxed`: the operating system decides when, so that a power cut may take the last seconds. */
  durability: 'full' | 'relaxed'
}

/** The database, in the data folder. */
export const DATABASE_FILE = 'voicemaild.sqlite'

/** How long a write waits for another process (a command beside the server) to end its own transaction. */
const BUSY_TIMEOUT_MS = 10_000
/** How often the reserve is looked after: it is taken again when a full disk has room again. */
const RESERVE_EVERY_MS = 60_000

/** Opens (or makes) `voicemaild.sqlite` in the data folder, with every migration applied; on a full disk too, as long as the reserve lasts. */
export function openDatabase (dataFolder: string, options: DatabaseOptions): Database {
  const reserve = createDiskReserve(dataFolder)
  const { sqlite, read } = openRows()
  reserve.take()
  const looking = setInterval(reserve.take, RESERVE_EVERY_MS).unref()
  const queue = createWriteQueue(sqlite, () => {
    reserve.giveUp()
    foldLog(sqlite)
  })
  return {
    read,
    prepare: preparing(sqlite),
    write: queue.write,
    probe: () => { sqlite.transaction(() => {}).immediate() },
    // In one step: SQLite begins anew whenever another connection writes between two.
    copyTo: async path => { await sqlite.backup(path, { progress: () => 0x7fffffff }) },
    close: async () => {
      clearInterval(looking)
      await queue.idle()
      if (!sqlite.open) return
      sqlite.close()
      // On a full disk the room that the log had.
      reserve.takeTheLast()
    }
  }

  function openRows (): ReturnType<typeof openMigrated> {
    try {
      return openMigrated(dataFolder, options)
    } catch (error) {
      // SQLite makes files when it opens, and tells a disk without room for them in several ways.
      if (!(error instanceof Sqlite.SqliteError && /^SQLITE_(FULL|CANTOPEN|IOERR)/.test(error.code) && reserve.giveUp())) throw error
      return openMigrated(dataFolder, options)
    }
  }
}

function openMigrated (dataFolder: string, { durability }: DatabaseOptions): { sqlite: Sqlite.Database, read: BetterSQLite3Database } {
  const path = join(dataFolder, DATABASE_FILE)
  makePrivate(path)
  const sqlite = new Sqlite(path, { timeout: BUSY_TIMEOUT_MS })
  try {
    sqlite.pragma(`synchronous = ${durability === 'full' ? 'FULL' : 'NORMAL'}`)
    const read = drizzle(sqlite)
    alone(sqlite, () => {
      sqlite.pragma('journal_mode = WAL')
      migrate(read, { migrationsFolder: migrationsFolder() })
    })
    sqlite.pragma('foreign_keys = ON')
    return { sqlite, read }
  } catch (error) {
    sqlite.close()
    throw error
  }
}

/** Moves what the write-ahead log holds into the database, as far as readers allow, so that the log is written from its beginning again. */
function foldLog (sqlite: Sqlite.Database): void {
  try {
    sqlite.pragma('wal_checkpoint(PASSIVE)')
  } catch {
    // The disk has no room for that either: the write that comes next says so.
  }
}

/**
 * Who called whom is for nobody else on this machine, in a folder that others may read as well; SQLite gives the files beside the
 * database its mode. One that is there already is not opened: closing it would end the locks that this process has on it.
 */
function makePrivate (path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600))
  } catch (error) {
    if (!existsSync(path)) throw error
  }
}

/**
 * The migrator wants one process at a time, and SQLite's change to WAL fails at once where another process is at it: a lock database
 * beside it makes a second one wait, and ends with its process.
 */
function alone (sqlite: Sqlite.Database, run: () => void): void {
  const lock = new Sqlite(join(dirname(sqlite.name), 'migrating.lock'), { timeout: BUSY_TIMEOUT_MS })
  try {
    lock.transaction(run).exclusive()
  } finally {
    lock.close()
  }
}

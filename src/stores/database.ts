import { closeSync, existsSync, openSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Sqlite from 'better-sqlite3'
import { drizzle, type BetterSQLite3Database } from 'drizzle-orm/better-sqlite3'
import { migrate } from 'drizzle-orm/better-sqlite3/migrator'
import { createWriteQueue, type WriteQueue } from './write-queue.js'

/** The rows of one data folder: reads go through `read`, everything that changes them through `write`. */
export interface Database {
  /** Prepare queries from this; run only those that read. */
  read: BetterSQLite3Database
  /** Runs a change inside a transaction; its result comes after the COMMIT is on the disk. */
  write: WriteQueue['write']
  /** Throws what stands in the way of writing, without changing a thing. */
  probe: () => void
  /** Waits for the writes under way, folds the write-ahead log into the database, and closes it. */
  close: () => Promise<void>
}

export interface DatabaseOptions {
  /** `full`: a COMMIT waits for the disk. `relaxed`: the operating system decides when, so that a power cut may take the last seconds. */
  durability: 'full' | 'relaxed'
}

/** How long a write waits for another process (a command beside the server) to end its own transaction. */
const BUSY_TIMEOUT_MS = 10_000

const MIGRATIONS_FOLDER = fileURLToPath(new URL('../../drizzle/', import.meta.url))

/** Opens (or makes) `voicemaild.sqlite` in the data folder, with every migration applied. */
export function openDatabase (dataFolder: string, { durability }: DatabaseOptions): Database {
  const path = join(dataFolder, 'voicemaild.sqlite')
  makePrivate(path)
  const sqlite = new Sqlite(path, { timeout: BUSY_TIMEOUT_MS })
  try {
    sqlite.pragma(`synchronous = ${durability === 'full' ? 'FULL' : 'NORMAL'}`)
    const read = drizzle(sqlite)
    alone(sqlite, () => {
      sqlite.pragma('journal_mode = WAL')
      migrate(read, { migrationsFolder: MIGRATIONS_FOLDER })
    })
    sqlite.pragma('foreign_keys = ON')
    const queue = createWriteQueue(sqlite)
    return {
      read,
      write: queue.write,
      probe: () => { sqlite.transaction(() => {}).immediate() },
      close: async () => {
        await queue.idle()
        if (sqlite.open) sqlite.close()
      }
    }
  } catch (error) {
    sqlite.close()
    throw error
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

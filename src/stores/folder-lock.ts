import { join } from 'node:path'
import Sqlite from 'better-sqlite3'

/**
 * Takes the data folder for one server. The lock is SQLite's on a file of its own, so that it ends with its process, however
 * that ends. Returns how to give it back, or undefined where another process has it.
 */
export function lockFolder (dataFolder: string): (() => void) | undefined {
  const lock = new Sqlite(join(dataFolder, 'server.lock'), { timeout: 0 })
  try {
    lock.pragma('journal_mode = MEMORY')
    lock.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    lock.close()
    if (error instanceof Sqlite.SqliteError && error.code.startsWith('SQLITE_BUSY')) return undefined
    throw error
  }
  return () => { lock.close() }
}

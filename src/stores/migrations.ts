import { closeSync, fsyncSync, openSync, renameSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import type Sqlite from 'better-sqlite3'
import type { BetterSQLite3Database } from 'drizzle-orm/better-sqlite3'
import { migrate } from 'drizzle-orm/better-sqlite3/migrator'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import { migrationsFolder as installedMigrations } from '../installation.js'

/** A database that this program does not know; the message is for people. */
export class SchemaError extends Error {
  override readonly name = 'SchemaError'
}

/**
 * Brings a database to the schema of this program, in one transaction; one process at a time may do this. Before one that is in use is
 * changed, a copy of it is put beside it (`voicemaild.sqlite.schema-2` of one with two migrations), for whoever wants the older program
 * back. Throws SchemaError, and changes nothing, where a newer program was here before.
 */
export function migrateRows (sqlite: Sqlite.Database, read: BetterSQLite3Database, migrationsFolder = installedMigrations()): void {
  const known = readMigrationFiles({ migrationsFolder }).map(({ folderMillis }) => folderMillis)
  const applied = appliedTo(sqlite)
  if (applied.some(when => !known.includes(when))) {
    throw new SchemaError(`${sqlite.name} is of a newer voicemaild: expected schema ${known.length} or older, found schema ${applied.length}.`)
  }
  if (applied.length === known.length) return
  if (applied.length > 0) keepCopy(sqlite, `${sqlite.name}.schema-${applied.length}`)
  migrate(read, { migrationsFolder })
}

/** Drizzle keeps the moments at which migrations were made, which stand in its journal too. */
function appliedTo (sqlite: Sqlite.Database): number[] {
  const table = '__drizzle_migrations'
  if (sqlite.prepare('SELECT 1 FROM sqlite_master WHERE name = ?').get(table) === undefined) return []
  return sqlite.prepare<[], number>(`SELECT created_at FROM ${table}`).pluck().all()
}

/** The copy has its name only once it is whole and on the disk. */
function keepCopy (sqlite: Sqlite.Database, path: string): void {
  const unfinished = `${path}.new`
  rmSync(unfinished, { force: true })
  try {
    // Made here, because SQLite would make it with whatever mode it is left.
    closeSync(openSync(unfinished, 'wx', 0o600))
    sqlite.prepare('VACUUM INTO ?').run(unfinished)
    sync(unfinished)
    renameSync(unfinished, path)
    sync(dirname(path))
  } finally {
    rmSync(unfinished, { force: true })
  }
}

function sync (path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

import type Sqlite from 'better-sqlite3'
import { explainFullDisk, isFullDisk } from './disk-full.js'

export interface WriteQueue {
  /**
   * Runs `change` inside a transaction, together with all that gathered until `setImmediate`, each in a savepoint of its own:
   * one that throws is undone alone and rejects its own caller. `change` must not await. Resolves after the COMMIT.
   */
  write: <T>(change: () => T) => Promise<T>
  /** Resolves when nothing waits any more. */
  idle: () => Promise<void>
}

interface Waiting {
  /** Runs the change, and says how to answer its caller once the outcome is on the disk. */
  run: () => () => void
  reject: (error: unknown) => void
}

/**
 * Group commit: at 32 callers one transaction for all of them is several times as fast as one each, because each COMMIT waits
 * for the disk. `makeRoom` is asked where the disk is full, and the same changes are tried once more.
 */
export function createWriteQueue (sqlite: Sqlite.Database, makeRoom = (): void => {}): WriteQueue {
  let waiting: Waiting[] = []
  let whenIdle: Array<() => void> = []
  const savepoint = sqlite.prepare('SAVEPOINT change')
  const undo = sqlite.prepare('ROLLBACK TO change')
  const release = sqlite.prepare('RELEASE change')
  const together = sqlite.transaction((batch: Waiting[]) => batch.map(({ run }) => run()))

  /** A full disk is everybody's: all of a batch is tried once more before anybody is told. */
  let mayMakeRoom = true

  function commit (batch: Waiting[]): Array<() => void> {
    try {
      mayMakeRoom = true
      return together.immediate(batch)
    } catch (error) {
      if (!isFullDisk(error)) throw error
      mayMakeRoom = false
      makeRoom()
      return together.immediate(batch)
    }
  }

  function flush (): void {
    const batch = waiting
    waiting = []
    try {
      for (const answer of commit(batch)) answer()
    } catch (error) {
      // BEGIN or COMMIT failed: nothing of this batch happened.
      for (const { reject } of batch) reject(explainFullDisk(error))
    }
    if (waiting.length > 0) return
    for (const resolve of whenIdle) resolve()
    whenIdle = []
  }

  return {
    write: async <T>(change: () => T) => await new Promise<T>((resolve, reject) => {
      const run = (): (() => void) => {
        savepoint.run()
        try {
          const value = change()
          release.run()
          return () => { resolve(value) }
        } catch (error) {
          // SQLite undid the whole transaction by itself (a full disk, an I/O error): the others were undone with it.
          if (!sqlite.inTransaction || (mayMakeRoom && isFullDisk(error))) throw error
          undo.run()
          release.run()
          return () => { reject(explainFullDisk(error)) }
        }
      }
      if (waiting.push({ run, reject }) === 1) setImmediate(flush)
    }),
    idle: async () => {
      if (waiting.length > 0) await new Promise<void>(resolve => { whenIdle.push(resolve) })
    }
  }
}

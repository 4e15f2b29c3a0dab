import fs from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import Sqlite from 'better-sqlite3'
import { disk } from '../../src/stores/disk.js'

/** One thing that the service asks of the disk. */
export interface Step {
  operation: 'open' | 'write' | 'datasync' | 'sync' | 'close' | 'stat' | 'read' | 'mkdir' | 'link' | 'rename' | 'unlink' | 'statfs' | 'readdir' | 'access' | 'COMMIT'
  /** Of the file or the folder; of the new entry for `link` and `rename`. */
  path: string
  /** What the new entry of `link` and `rename` comes from. */
  from?: string
  /** What `write` writes. */
  bytes?: number
}

export interface Watcher {
  /** What it throws the caller sees in place of the step. */
  before?: (step: Step) => void
  /** What it throws the caller sees though the step was done. */
  after?: (step: Step) => void
}

/** How many files are open. */
export interface Watched { openHandles: () => number, restore: () => void }

/**
 * Lets a watcher see every step on the disk that this process takes through the stores' `disk` and `node:fs/promises`, and every COMMIT. A write is two
 * steps, a half of the bytes each, so that there is a moment in the middle of it.
 */
export async function watchDisk ({ before = () => {}, after = () => {} }: Watcher): Promise<Watched> {
  const paths = new Map<number, string>()
  const take = async <T>(step: Step, run: () => Promise<T>): Promise<T> => {
    before(step)
    const value = await run()
    after(step)
    return value
  }
  const takeNow = <T>(step: Step, run: () => T): T => {
    before(step)
    const value = run()
    after(step)
    return value
  }

  const plain = { mkdir: fs.mkdir, readdir: fs.readdir, access: fs.access }
  const onPath = (operation: keyof typeof plain) => ({
    [operation]: async (path: string, options?: object) =>
      await take<unknown>({ operation, path }, async () => await call(plain[operation], fs, path, options))
  })
  Object.assign(fs, { ...onPath('mkdir'), ...onPath('readdir'), ...onPath('access') })
  syncBuiltinESMExports()

  const real = { ...disk }
  const pathOf = (fd: number): string => paths.get(fd) ?? ''
  Object.assign(disk, {
    open: async (path, flags, mode) => await take({ operation: 'open', path }, async () => {
      const fd = await real.open(path, flags, mode)
      paths.set(fd, path)
      return fd
    }),
    openNow: path => takeNow({ operation: 'open', path }, () => {
      const fd = real.openNow(path)
      paths.set(fd, path)
      return fd
    }),
    write: async (fd, pieces) => {
      const bytes = Buffer.concat(pieces)
      const middle = bytes.byteLength >> 1
      for (const half of [bytes.subarray(0, middle), bytes.subarray(middle)]) {
        await take({ operation: 'write', path: pathOf(fd), bytes: half.byteLength }, async () => { await real.write(fd, [half]) })
      }
    },
    read: async (fd, into, first) => await take({ operation: 'read', path: pathOf(fd) }, async () => await real.read(fd, into, first)),
    readNow: (fd, into, first) => takeNow({ operation: 'read', path: pathOf(fd) }, () => real.readNow(fd, into, first)),
    datasync: async fd => { await take({ operation: 'datasync', path: pathOf(fd) }, async () => { await real.datasync(fd) }) },
    sync: async fd => { await take({ operation: 'sync', path: pathOf(fd) }, async () => { await real.sync(fd) }) },
    link: async (from, path) => { await take({ operation: 'link', path: String(path), from: String(from) }, async () => { await real.link(from, path) }) },
    rename: async (from, path) => { await take({ operation: 'rename', path: String(path), from: String(from) }, async () => { await real.rename(from, path) }) },
    unlink: async path => { await take({ operation: 'unlink', path: String(path) }, async () => { await real.unlink(path) }) },
    size: fd => takeNow({ operation: 'stat', path: pathOf(fd) }, () => real.size(fd)),
    freeBytes: path => takeNow({ operation: 'statfs', path }, () => real.freeBytes(path)),
    close: fd => {
      const path = pathOf(fd)
      paths.delete(fd)
      takeNow({ operation: 'close', path }, () => { real.close(fd) })
    }
  } satisfies Partial<typeof disk>)

  const memory = new Sqlite(':memory:')
  const statements: Sqlite.Statement = Object.getPrototypeOf(memory.prepare('SELECT 1'))
  const { run } = statements
  memory.close()
  Object.assign(statements, {
    run (this: Sqlite.Statement, ...args: unknown[]) {
      const step: Step | undefined = this.source === 'COMMIT' && /voicemaild\.sqlite$/.test(this.database.name)
        ? { operation: 'COMMIT', path: this.database.name }
        : undefined
      if (step !== undefined) before(step)
      const result: unknown = Reflect.apply(run, this, args)
      if (step !== undefined) after(step)
      return result
    }
  })

  return {
    openHandles: () => paths.size,
    restore: () => {
      Object.assign(fs, plain)
      syncBuiltinESMExports()
      Object.assign(disk, real)
      Object.assign(statements, { run })
    }
  }
}

/** What the system, or SQLite, says when a step fails. */
export function faultOf (code: string): Error {
  return code.startsWith('SQLITE_') ? new Sqlite.SqliteError(`an injected ${code}`, code) : Object.assign(new Error(`an injected ${code}`), { code })
}

/** A method as it was before it was patched. */
async function call (method: object, of: object, ...args: unknown[]): Promise<unknown> {
  return await (method instanceof Function ? Reflect.apply(method, of, args) : undefined)
}

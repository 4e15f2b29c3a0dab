import fs, { type FileHandle } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import Sqlite from 'better-sqlite3'

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

/** How many handles are open. */
export interface Watched { openHandles: () => number, restore: () => void }

/**
 * Lets a watcher see every step on the disk that this process takes through `node:fs/promises`, and every COMMIT. A write is two
 * steps, a half of the bytes each, so that there is a moment in the middle of it.
 */
export async function watchDisk ({ before = () => {}, after = () => {} }: Watcher): Promise<Watched> {
  const paths = new WeakMap<object, string>()
  let openHandles = 0
  const take = async <T>(step: Step, run: () => Promise<T>): Promise<T> => {
    before(step)
    const value = await run()
    after(step)
    return value
  }

  const plain = { open: fs.open, mkdir: fs.mkdir, link: fs.link, rename: fs.rename, unlink: fs.unlink, statfs: fs.statfs, readdir: fs.readdir, access: fs.access }
  const onPath = (operation: 'mkdir' | 'unlink' | 'statfs' | 'readdir' | 'access') => ({
    [operation]: async (path: string, options?: object) =>
      await take<unknown>({ operation, path }, async () => await call(plain[operation], fs, path, options))
  })
  const onPaths = (operation: 'link' | 'rename') => ({
    [operation]: async (from: string, path: string) => { await take({ operation, path, from }, async () => { await plain[operation](from, path) }) }
  })
  Object.assign(fs, {
    open: async (path: string, flags: string | number, mode?: number) => await take({ operation: 'open', path }, async () => {
      const handle = await plain.open(path, flags, mode)
      paths.set(handle, path)
      openHandles += 1
      // A handle's own property, not its class's.
      const { close } = handle
      return Object.assign(handle, {
        close: async () => {
          openHandles -= 1
          await take({ operation: 'close', path }, async () => { await close() })
        }
      })
    }),
    ...onPath('mkdir'),
    ...onPath('unlink'),
    ...onPath('statfs'),
    ...onPath('readdir'),
    ...onPath('access'),
    ...onPaths('link'),
    ...onPaths('rename')
  })
  syncBuiltinESMExports()

  const someHandle = await plain.open('/dev/null')
  const handles: FileHandle = Object.getPrototypeOf(someHandle)
  const { writeFile, datasync, sync, stat, read } = handles
  await someHandle.close()
  const onHandle = (operation: 'datasync' | 'sync' | 'stat' | 'read', method: object) => ({
    async [operation] (this: FileHandle, ...args: unknown[]) {
      return await take({ operation, path: paths.get(this) ?? '' }, async () => await call(method, this, ...args))
    }
  })
  Object.assign(handles, {
    ...onHandle('datasync', datasync),
    ...onHandle('sync', sync),
    ...onHandle('stat', stat),
    ...onHandle('read', read),
    async writeFile (this: FileHandle, bytes: Uint8Array) {
      const middle = bytes.byteLength >> 1
      for (const half of [bytes.subarray(0, middle), bytes.subarray(middle)]) {
        await take({ operation: 'write', path: paths.get(this) ?? '', bytes: half.byteLength }, async () => { await Reflect.apply(writeFile, this, [half]) })
      }
    }
  })

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
    openHandles: () => openHandles,
    restore: () => {
      Object.assign(fs, plain)
      syncBuiltinESMExports()
      Object.assign(handles, { writeFile, datasync, sync, stat, read })
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

import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { run, sleep, type RunOptions } from './tools.js'

/** A server that answers at 127.0.0.1. */
export interface ServerProcess {
  pid: number
  port: number
  stop: () => Promise<void>
}

export interface ServerCommand {
  program: string
  args: readonly string[]
  env?: Record<string, string>
  /** One that was asked from `freePort` (test/free-port.ts). */
  port: number
}

/** Where everything happens: one folder, one core for servers and another one for clients. Whatever is begun here ends with `close`. */
export interface Stage {
  folder: string
  serverCpu: number
  clientCpu: number
  /** What node gets to read before the program of voicemaild. */
  nodeArgs: readonly string[]
  /** Makes an empty folder, in a place of the disk where files are made quickly. */
  newFolder: (name: string) => string
  /** Runs a program to its end, on one of the two cores. */
  runOn: (cpu: number, program: string, args: readonly string[], options?: Pick<RunOptions, 'env' | 'timeoutMs'>) => Promise<string>
  /** Starts a server, on the server's core, without waiting for it. */
  spawnServer: (command: ServerCommand) => ChildProcess
  /** Starts a server and waits until it takes connections. */
  startServer: (command: ServerCommand) => Promise<ServerProcess>
  stopServers: () => Promise<void>
  /**
   * Takes the bytes out of all files in the folders that were made so far, but leaves the files: ext4 makes new ones slowly for minutes
   * after many were deleted.
   */
  emptyFolders: () => void
  /** Ends all processes and deletes all files. */
  close: () => Promise<void>
}

const START_TIMEOUT_MS = 30_000
const STOP_TIMEOUT_MS = 20_000

export async function openStage (parentFolder: string, nodeArgs: readonly string[] = []): Promise<Stage> {
  const { serverCpu, clientCpu } = chooseCpus()
  await run('taskset', ['-acp', String(clientCpu), String(process.pid)])
  const folder = await mkdtemp(join(parentFolder, 'voicemaild-bench-'))
  // Folders below it are spread over ext4's block groups, as those of the root are.
  await run('chattr', ['+T', folder]).catch(() => {})
  const running = new Set<ChildProcess>()
  const folders: string[] = []
  const closing = new AbortController()
  let closed: Promise<void> | undefined

  const spawnServer: Stage['spawnServer'] = ({ program, args, env }) => {
    closing.signal.throwIfAborted()
    const child = spawn('setpriv', pinned(serverCpu, program, args), {
      env: { ...process.env, PROFILE_FOLDER: folder, ...env }, stdio: ['ignore', 'ignore', 'pipe']
    })
    running.add(child)
    child.once('exit', () => { running.delete(child) })
    return child
  }

  return {
    folder,
    serverCpu,
    clientCpu,
    nodeArgs,
    newFolder: name => {
      const path = makeQuickFolder(folder, name.replace(/\W+/g, '-'))
      folders.push(path)
      return path
    },
    runOn: async (cpu, program, args, options) => await run('setpriv', pinned(cpu, program, args), { ...options, signal: closing.signal }),
    spawnServer,
    startServer: async command => {
      const child = spawnServer(command)
      const lines: string[] = []
      child.stderr?.on('data', chunk => {
        lines.push(String(chunk))
        lines.splice(0, lines.length - 20)
      })
      const untilMs = performance.now() + START_TIMEOUT_MS
      while (!await takesConnections(command.port)) {
        if (hasEnded(child)) throw new Error(`${command.program} ${command.args.join(' ')} did not start: ${lines.join('')}`)
        if (performance.now() > untilMs) throw new Error(`${command.program} ${command.args.join(' ')} does not answer: ${lines.join('')}`)
        await sleep(10)
      }
      return { pid: child.pid ?? 0, port: command.port, stop: async () => { await end(child) } }
    },
    stopServers: async () => { await Promise.all([...running].map(end)) },
    emptyFolders: () => { for (const path of folders.splice(0)) emptyFiles(path) },
    close: async () => {
      closing.abort()
      closed ??= deleteAll()
      await closed
    }
  }

  async function deleteAll (): Promise<void> {
    await Promise.all([...running].map(end))
    await rm(folder, { recursive: true, force: true, maxRetries: 3 })
  }
}

/** Should this process be killed, what it started gets a signal. */
function pinned (cpu: number, program: string, args: readonly string[]): string[] {
  return ['--pdeathsig', 'TERM', 'taskset', '-c', String(cpu), program, ...args]
}

/** The first core that this process may use is the client's, the last one the server's. */
function chooseCpus (): { serverCpu: number, clientCpu: number } {
  const list = /^Cpus_allowed_list:\s+(\S+)/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? '0'
  const ends = list.split(/[,-]/).map(Number)
  const [clientCpu, serverCpu] = [ends.at(0) ?? 0, ends.at(-1) ?? 0]
  if (clientCpu === serverCpu) throw new Error('The benchmark needs two cores: one for the server, one for the client.')
  return { serverCpu, clientCpu }
}

async function takesConnections (port: number): Promise<boolean> {
  const socket = connect({ host: '127.0.0.1', port })
  const connected = await new Promise<boolean>(resolve => {
    socket.once('connect', () => { resolve(true) }).once('error', () => { resolve(false) })
  })
  socket.destroy()
  return connected
}

const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

async function end (child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return
  const exit = once(child, 'exit')
  child.kill('SIGTERM')
  const patience = setTimeout(() => { child.kill('SIGKILL') }, STOP_TIMEOUT_MS)
  await exit
  clearTimeout(patience)
}

const TRIAL_FILES = 64
const TRIAL_FOLDERS = 12
/** What making a file takes at most where nothing is in its way. */
const QUICK_FILE_MS = 0.1

/**
 * For minutes after many files were deleted (by the benchmark's last run, say) ext4 passes over their inodes one by one, and is slow in
 * making files in that part of the disk. Of several folders, spread over the disk, the first that is not slow is taken, or the best.
 */
function makeQuickFolder (parent: string, name: string): string {
  let best = { path: parent, tookMs: Infinity }
  for (let n = 0; n < TRIAL_FOLDERS && best.tookMs > TRIAL_FILES * QUICK_FILE_MS; n++) {
    const path = join(parent, `${name}-${randomBytes(6).toString('hex')}`)
    mkdirSync(path)
    const trials = Array.from({ length: TRIAL_FILES }, (_none, at) => join(path, String(at)))
    const sinceMs = performance.now()
    for (const trial of trials) writeFileSync(trial, '')
    const tookMs = performance.now() - sinceMs
    for (const trial of trials) unlinkSync(trial)
    if (tookMs < best.tookMs) best = { path, tookMs }
  }
  return best.path
}

/** In one go, which is ten times as fast as with promises: nothing else is to happen meanwhile. */
function emptyFiles (folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) emptyFiles(path)
    else if (entry.isFile()) truncateSync(path)
  }
}

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rm, truncate } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { run, sleep } from './tools.js'

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
  /** One that was asked from `freePort`. */
  port: number
}

/** Where everything happens: one folder, one core for servers and another one for clients. Whatever is begun here ends with `close`. */
export interface Stage {
  folder: string
  serverCpu: number
  clientCpu: number
  newFolder: (name: string) => Promise<string>
  /** Starts a server, on the server's core, without waiting for it. */
  spawnServer: (command: ServerCommand) => ChildProcess
  /** Starts a server and waits until it takes connections. */
  startServer: (command: ServerCommand) => Promise<ServerProcess>
  stopServers: () => Promise<void>
  /**
   * Takes the bytes out of all files in the folders that were made so far, but leaves the files: ext4 makes new ones slowly for minutes
   * after many were deleted.
   */
  emptyFolders: () => Promise<void>
  /** Ends all processes and deletes all files. */
  close: () => Promise<void>
}

const START_TIMEOUT_MS = 30_000
const STOP_TIMEOUT_MS = 20_000

export async function openStage (parentFolder: string): Promise<Stage> {
  const { serverCpu, clientCpu } = chooseCpus()
  await run('taskset', ['-cp', String(clientCpu), String(process.pid)])
  const folder = await mkdtemp(join(parentFolder, 'voicemaild-bench-'))
  const running = new Set<ChildProcess>()
  const folders: string[] = []
  let folderNumber = 0

  const spawnServer: Stage['spawnServer'] = ({ program, args, env }) => {
    // Should this process be killed, its servers get a signal.
    const child = spawn('setpriv', ['--pdeathsig', 'TERM', 'taskset', '-c', String(serverCpu), program, ...args], {
      env: { ...process.env, ...env }, stdio: ['ignore', 'ignore', 'pipe']
    })
    running.add(child)
    child.once('exit', () => { running.delete(child) })
    return child
  }

  return {
    folder,
    serverCpu,
    clientCpu,
    newFolder: async name => {
      folderNumber += 1
      const path = join(folder, `${folderNumber}-${name.replace(/\W+/g, '-')}`)
      await mkdir(path)
      folders.push(path)
      return path
    },
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
    emptyFolders: async () => { for (const path of folders.splice(0)) await emptyFiles(path) },
    close: async () => {
      for (const child of running) child.kill('SIGTERM')
      await Promise.all([...running].map(end))
      await rm(folder, { recursive: true, force: true, maxRetries: 3 })
    }
  }
}

/** A TCP port that nobody has; whoever asked takes it at once. */
export async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
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

async function emptyFiles (folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) await emptyFiles(path)
    else if (entry.isFile()) await truncate(path)
  }
}

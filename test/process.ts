import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, readFile, symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Settings } from '../src/config.js'

export interface ProcessOptions {
  /** What stands after the program's name; `serve` unless given. */
  args?: string[]
  /** The working folder. */
  cwd: string
  /** The file that `buildProgram` returned; the sources unless given, which take a second longer to start. */
  main?: string
  /** What starts the program, in place of `main`. */
  command?: [string, ...string[]]
  /** Every setting of the environment that the test runs in is taken away first. */
  settings?: Record<string, string>
}

/** The real program in a process of its own. */
export interface Program {
  child: ChildProcess
  /** Standard output and standard error so far. */
  out: () => string
  err: () => string
  /** Resolves with the exit code, or the signal, when the process is gone and has been heard to the end. */
  ended: Promise<number | string | null>
}

/** A program that serves. */
export interface Server extends Program {
  url: string
  /** Sends the signal, and resolves as `ended` does. */
  stop: (signal: NodeJS.Signals) => Promise<number | string | null>
}

/** The single executable, where the tests are to run against it: `npm run test:binary`. */
export const EXECUTABLE = process.env['VOICEMAILD_PROGRAM']

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const TSX = import.meta.resolve('tsx')

/**
 * Builds the program into an empty folder, as `npm run build` does, beside what its package and an installation have. Returns the file to
 * start. Where the tests run against the executable, it is that one.
 */
export async function buildProgram (folder: string): Promise<string> {
  if (EXECUTABLE !== undefined) return EXECUTABLE
  const { files }: { files: string[] } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'))
  for (const name of ['package.json', 'node_modules', ...files.filter(name => name !== 'dist')]) await symlink(join(ROOT, name), join(folder, name))
  await promisify(execFile)(process.execPath, [`--import=${TSX}`, 'build.ts', join(folder, 'dist')], { cwd: ROOT })
  return join(folder, 'dist', 'main.js')
}

/** What starts a file that `buildProgram` returned, or what is tested where there is none. */
export function commandOf (main = EXECUTABLE): [string, ...string[]] {
  if (main === undefined) return [process.execPath, `--import=${TSX}`, join(ROOT, 'src', 'main.ts')]
  return main === EXECUTABLE ? [main] : [process.execPath, main]
}

/** Of the environment of the tests, nothing that is a setting; the executable gets nothing of it at all, and finds no Node. */
function environment (): NodeJS.ProcessEnv {
  if (EXECUTABLE !== undefined) return { HOME: dirname(EXECUTABLE), PATH: '/nonexistent' }
  const env = { ...process.env }
  for (const name of Object.keys(Settings.properties)) delete env[name]
  return env
}

/** For whoever makes sure that the tests ran against the executable indeed: test/binary/run.ts. */
export async function noteStart (kind: 'service' | 'program'): Promise<void> {
  const file = process.env['VOICEMAILD_STARTS']
  if (EXECUTABLE !== undefined && file !== undefined) await appendFile(file, `${kind}\n`)
}

/** Starts the program; it ends with the test at the latest. */
export function startProgram (t: { teardown: (run: () => unknown) => void }, { args = ['serve'], cwd, main, command = commandOf(main), settings = {} }: ProcessOptions): Program {
  const [file, ...before] = command
  const child = spawn(file, [...before, ...args], { cwd, env: { ...environment(), ...settings }, stdio: ['ignore', 'pipe', 'pipe'] })
  const text = { out: '', err: '' }
  child.stdout.on('data', chunk => { text.out += String(chunk) })
  child.stderr.on('data', chunk => { text.err += String(chunk) })
  const ended = once(child, 'close').then(([code, signal]: Array<number | string | null>) => code ?? signal ?? null)
  const noted = noteStart('program')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
    await noted
  })
  return { child, out: () => text.out, err: () => text.err, ended }
}

/** Starts the program and waits until it serves. Rejects with what it said where it ends before. */
export async function startServer (t: { teardown: (run: () => unknown) => void }, options: ProcessOptions): Promise<Server> {
  const program = startProgram(t, options)
  const { child, err, ended } = program
  const url = await new Promise<string>((resolve, reject) => {
    child.stderr?.on('data', () => {
      const [, url] = /^voicemaild listens on (\S+)\n[^]*^Admin API key: .*\n/m.exec(err()) ?? []
      if (url !== undefined) resolve(url)
    })
    ended.then(code => { reject(new Error(`ended with ${code}: ${err()}`)) }, reject)
  })
  return {
    ...program,
    url,
    stop: async signal => {
      child.kill(signal)
      return await ended
    }
  }
}

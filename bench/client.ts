import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Stage } from './stage.js'

/** Requests that differ in their targets alone. */
export interface Load {
  method: 'GET' | 'PUT' | 'POST' | 'DELETE'
  headers: Readonly<Record<string, string>>
  targets: readonly string[]
  /** `once`: each target is for one request, and the run ends with the last one. */
  use: 'once' | 'around'
  /** Any other status fails the run. */
  status: number
  bodyFile?: string
  /** A file that every body has to equal. */
  expectedFile?: string
  /** Whether bodies are too large for the client to compare them while it is to be faster than the server. */
  isLarge?: boolean
  expectedBytes?: number
}

/** How long a run is: it ends with whichever comes first, and waits for the answers under way. */
export interface Extent { seconds: number, operations: number }

export interface ClientResult { operations: number, seconds: number }

const SCRIPT = fileURLToPath(new URL('client.lua', import.meta.url))
/** For the answers under way at the end of a run, on a slow disk. */
const GRACE_SECONDS = 60

/**
 * Sends a load with wrk, from the client's core, over so many connections. Throws where a single answer is not the right one; looks at
 * `whole` answers, or at their `length` alone.
 */
export async function sendLoad (stage: Stage, port: number, connections: number, load: Load, extent: Extent, look: 'whole' | 'length' = 'whole'): Promise<ClientResult> {
  const [targetsFile, headersFile] = [join(stage.folder, 'targets'), join(stage.folder, 'headers')]
  await writeFile(targetsFile, load.targets.map(target => `${target}\n`).join(''))
  await writeFile(headersFile, Object.entries(load.headers).map(([name, value]) => `${name}: ${value}\r\n`).join(''))
  const lastSeconds = Math.ceil(extent.seconds) + GRACE_SECONDS
  const output = await stage.runOn(stage.clientCpu, 'wrk', [
    '--threads', '1', '--connections', String(connections), '--duration', `${lastSeconds}s`,
    '--timeout', `${lastSeconds}s`, '--script', SCRIPT, `http://127.0.0.1:${port}/`, '--',
    String(connections), String(extent.seconds), String(extent.operations), load.use, look, String(load.status), load.method,
    targetsFile, headersFile, load.bodyFile ?? '-', load.expectedFile ?? '-', String(load.expectedBytes ?? '-')
  ], { timeoutMs: (lastSeconds + 10) * 1000 })
  const { seconds, counts, first } = readOutput(output)
  const { issued, answered, ...errors } = Object.fromEntries(counts)
  const wrong = Object.entries(errors).filter(([, count]) => count > 0).map(([name, count]) => `, ${name} ${count}`).join('')
  if (wrong !== '' || answered === undefined || answered === 0 || answered !== issued) {
    const hint = first === '' ? '' : `; wanted was ${load.status}, and the first other answer ${first}`
    throw new Error(`${load.method} ${load.targets[0] ?? ''}: ${answered} of ${issued} were answered${wrong}${hint}`)
  }
  return { operations: answered, seconds }
}

const COUNTS = ['issued', 'answered', 'badStatus', 'badBody', 'connect', 'read', 'write', 'timeout'] as const
type Count = typeof COUNTS[number]

function readOutput (output: string): { seconds: number, counts: Map<Count, number>, first: string } {
  const line = /^RESULT (.*)$/m.exec(output)?.[1]
  if (line === undefined) throw new Error(`wrk: ${output.slice(-1000)}`)
  const [seconds = 0, ...counts] = line.split(' ').map(Number)
  return { seconds, counts: new Map(COUNTS.map((name, at) => [name, counts[at] ?? 0])), first: /^FIRST (.*)$/m.exec(output)?.[1] ?? '' }
}

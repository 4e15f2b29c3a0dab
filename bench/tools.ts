import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

export { setTimeout as sleep } from 'node:timers/promises'

const execute = promisify(execFile)

export interface RunOptions { cwd?: string, env?: NodeJS.ProcessEnv, timeoutMs?: number, signal?: AbortSignal }

/** Runs a program to its end and returns what it printed. Rejects, with the end of its errors, where it fails or takes too long. */
export async function run (program: string, args: readonly string[], { cwd, env, signal, timeoutMs = 600_000 }: RunOptions = {}): Promise<string> {
  try {
    const { stdout } = await execute(program, args, {
      ...cwd !== undefined && { cwd },
      ...env !== undefined && { env },
      ...signal !== undefined && { signal },
      timeout: timeoutMs,
      maxBuffer: 64 * 1024 * 1024
    })
    return stdout
  } catch (error) {
    const stderr = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : ''
    throw new Error(`${program} ${args.slice(0, 3).join(' ')} failed: ${stderr === '' ? String(error) : stderr.slice(-1000)}`, { cause: error })
  }
}

import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Contender } from '../contest.js'
import type { Stage } from '../stage.js'
import { run } from '../tools.js'

export const FLOOR = 'disk floor in C'
export const NODE_FLOOR = 'disk floor in node'
export const UNSYNCED_FLOOR = 'disk floor in node, unsynced'

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

/**
 * The disk's floor as contenders, on the server's core, for a file to write and how many times at once. Where the disk is fast, node comes
 * to a floor of its own before: what that is can be asked too.
 */
export async function floorContenders (stage: Stage): Promise<(file: string, atOnce: number, inNodeToo: boolean) => Contender[]> {
  const folder = stage.newFolder('floor')
  const program = join(folder, 'floor')
  await run('cc', ['-O2', '-pthread', '-o', program, path('floor.c')])
  const inNode = [process.execPath, '--import=tsx', path('floor.ts')]
  const contender = (name: string, command: readonly string[], file: string, atOnce: number, ...more: string[]): Contender => ({
    name,
    run: async ({ seconds, operations }) => {
      const [program = '', ...args] = [...command, folder, file, String(atOnce), String(seconds), String(operations), ...more]
      const output = await stage.runOn(stage.serverCpu, program, args, { env: { ...process.env, UV_THREADPOOL_SIZE: String(Math.max(4, atOnce)) } })
      const [files = 0, took = 1, cpuUs = 0, peakBytes = 0] = output.split(' ').map(Number)
      return { operations: files, opsPerSecond: files / took, cpuUsPerOp: cpuUs / files, peakMegabytes: peakBytes / 1e6 }
    }
  })
  return (file, atOnce, inNodeToo) => [
    contender(FLOOR, [program], file, atOnce),
    ...inNodeToo ? [contender(NODE_FLOOR, inNode, file, atOnce), contender(UNSYNCED_FLOOR, inNode, file, atOnce, 'unsynced')] : []
  ]
}

import type { Extent, Load } from './client.js'
import { sendLoad } from './client.js'
import { readTree } from './process-tree.js'
import type { ServerProcess, Stage } from './stage.js'
import { run } from './tools.js'

/** What one run found. */
export interface Sample {
  operations: number
  opsPerSecond: number
  /** Of the server's whole process tree. */
  cpuUsPerOp: number
  peakMegabytes: number
}

export interface Contender { name: string, run: (extent: Extent) => Promise<Sample> }

/** Contenders that do the same thing, in turns. */
export interface Contest { name: string, extent: Extent, contenders: readonly Contender[] }

/** What was found, by the name of the contender; one sample for each round. */
export interface ContestResult { name: string, samples: ReadonlyMap<string, readonly Sample[]> }

/** A part of a run is enough to warm up compilers, caches and connections to the database. */
const WARM_UP_PART = 0.4

export async function hold (contest: Contest, rounds: number, tell: (line: string) => void): Promise<ContestResult> {
  const samples = new Map<string, Sample[]>()
  const warmUp = { seconds: contest.extent.seconds * WARM_UP_PART, operations: Math.ceil(contest.extent.operations * WARM_UP_PART) }
  for (const { name, run } of contest.contenders) {
    await failingFor(contest.name, name, async () => await run(warmUp))
    samples.set(name, [])
  }
  for (let round = 1; round <= rounds; round++) {
    for (const { name, run: runOnce } of contest.contenders) {
      // What one server left to be written is not paid by the next.
      await run('sync', [])
      const sample = await failingFor(contest.name, name, async () => await runOnce(contest.extent))
      samples.get(name)?.push(sample)
      tell(`${contest.name}, round ${round}: ${name} ${Math.round(sample.opsPerSecond)}/s, ${Math.round(sample.cpuUsPerOp)} µs`)
    }
  }
  return { name: contest.name, samples }
}

async function failingFor<T> (contest: string, contender: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run()
  } catch (error) {
    throw new Error(`${contest}, ${contender}: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
  }
}

/** A contender behind HTTP; `load` is asked anew before each run, outside its time. */
export function httpContender (stage: Stage, name: string, server: ServerProcess, connections: number, load: (extent: Extent) => Load): Contender {
  return {
    name,
    run: async extent => {
      const requests = load(extent)
      const before = readTree(server.pid)
      const { operations, seconds } = await sendLoad(stage, server.port, connections, requests, extent)
      const after = readTree(server.pid)
      return {
        operations,
        opsPerSecond: operations / seconds,
        cpuUsPerOp: (after.cpuUs - before.cpuUs) / operations,
        peakMegabytes: after.peakBytes / 1e6
      }
    }
  }
}

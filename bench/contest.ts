import type { Extent, Load } from './client.js'
import { sendLoad } from './client.js'
import { forgetPeak, readTree } from './process-tree.js'
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

/** `pid` where there is a server behind it. */
export interface Contender { name: string, pid?: number, run: (extent: Extent) => Promise<Sample> }

/** Contenders that do the same thing, in turns. */
export interface Contest {
  name: string
  extent: Extent
  /** How each begins, unmeasured: compilers, caches and connections to the database get warm. */
  warmUp: Extent
  contenders: readonly Contender[]
  /** The names of those that are compared with all others; the others are not compared with each other. */
  subjects: readonly string[]
  /** Where other than the run's. */
  rounds?: number
}

/** What was found, by the name of the contender; one sample for each round. */
export interface ContestResult { name: string, subjects: readonly string[], samples: ReadonlyMap<string, readonly Sample[]> }

export async function hold (contest: Contest, roundsOfRun: number, tell: (line: string) => void): Promise<ContestResult> {
  const samples = new Map<string, Sample[]>()
  for (const { name, run } of contest.contenders) {
    await failingFor(contest.name, name, async () => await run(contest.warmUp))
    samples.set(name, [])
  }
  const { rounds = roundsOfRun } = contest
  for (let round = 1; round <= rounds; round++) {
    for (const { name, run: runOnce } of contest.contenders) {
      // What one server left to be written is not paid by the next.
      await run('sync', [])
      const sample = await failingFor(contest.name, name, async () => await runOnce(contest.extent))
      samples.get(name)?.push(sample)
      tell(`${contest.name}, round ${round}: ${name} ${Math.round(sample.opsPerSecond)}/s, ${Math.round(sample.cpuUsPerOp)} µs`)
    }
  }
  return { name: contest.name, subjects: contest.subjects, samples }
}

async function failingFor<T> (contest: string, contender: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run()
  } catch (error) {
    throw new Error(`${contest}, ${contender}: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
  }
}

/** More than comparing takes. */
const COMPARE_SECONDS = 60

/** A contender behind HTTP; `loadFor` is asked anew before each run, outside its time. */
export function httpContender (stage: Stage, name: string, server: ServerProcess, connections: number, loadFor: (extent: Extent) => Load | Promise<Load>): Contender {
  return {
    name,
    pid: server.pid,
    run: async extent => {
      const load = await loadFor(extent)
      const isLarge = load.isLarge === true
      // Each is compared once before the run, and counted within it.
      if (isLarge) await sendLoad(stage, server.port, connections, load, { seconds: COMPARE_SECONDS, operations: load.targets.length })
      forgetPeak(server.pid)
      const before = readTree(server.pid)
      const { operations, seconds } = await sendLoad(stage, server.port, connections, load, extent, isLarge ? 'length' : 'whole')
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

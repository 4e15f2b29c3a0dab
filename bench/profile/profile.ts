import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Contender, Contest } from '../contest.js'
import { readMainThread, readTree } from '../process-tree.js'
import { table } from '../report.js'
import type { Stage } from '../stage.js'
import { sleep } from '../tools.js'
import { createPlaces, PLACES, type CallFrame, type Place } from './places.js'

/** A profile as V8 writes it (Chrome DevTools Protocol, Profiler.Profile). */
interface CpuProfile {
  nodes: Array<{ id: number, callFrame: CallFrame, children?: number[] }>
  samples: number[]
  timeDeltas: number[]
}

const NAMES = 8

/** Runs a contender once, with a profile taken of its main thread, and says in Markdown where the time went. */
export async function profileRun (stage: Stage, { name, extent, warmUp }: Contest, { pid, ...contender }: Contender & { pid: number }, bundle: string): Promise<string> {
  const file = join(stage.folder, `${pid}.cpuprofile`)
  rmSync(file, { force: true })
  await contender.run(warmUp)
  const [before, mainBefore] = [readTree(pid).cpuUs, readMainThread(pid)]
  process.kill(pid, 'SIGUSR2')
  const { operations } = await contender.run(extent)
  const [after, mainAfter] = [readTree(pid).cpuUs, readMainThread(pid)]
  process.kill(pid, 'SIGUSR2')
  while (!existsSync(file)) await sleep(20)
  const each = (us: number): string => Math.round(us / operations).toLocaleString('en')
  const { places, names } = sum(JSON.parse(readFileSync(file, 'utf8')) as CpuProfile, createPlaces(bundle))
  const whole = [...places.values()].reduce((all, us) => all + us, 0)
  const percent = (us: number): string => `${(us / whole * 100).toFixed(1)} %`
  const byTime = <T>(times: ReadonlyMap<T, number>): Array<[T, number]> => [...times].sort(([, a], [, b]) => b - a)
  return `## ${name.slice(0, 1).toUpperCase()}${name.slice(1)}: ${contender.name}\n\n` +
    `${each(after - before)} µs of CPU each, ${each(mainAfter - mainBefore)} of them in the main thread, whose time went to:\n\n` +
    table(['', 'part'], byTime(places).map(([place, us]) => [place, percent(us)])) +
    `\nMost of all: ${byTime(names).slice(0, NAMES).map(([name, us]) => `${name} ${percent(us)}`).join('; ')}.\n`
}

/** Microseconds of the samples, by place and by function; time in which nothing was to do, or which the profile itself took, is left out. */
function sum ({ nodes, samples, timeDeltas }: CpuProfile, placeOf: ReturnType<typeof createPlaces>): { places: Map<Place, number>, names: Map<string, number> } {
  const byId = new Map(nodes.map(node => [node.id, node]))
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map(child => [child, id] as const)))
  const places = new Map<Place, number>(PLACES.map(place => [place, 0]))
  const names = new Map<string, number>()
  const known = new Map<number, ReturnType<typeof placeOf>>()
  samples.forEach((id, at) => {
    const frames: CallFrame[] = []
    for (let node = byId.get(id); node !== undefined; node = byId.get(parents.get(node.id) ?? -1)) frames.push(node.callFrame)
    if (frames[0]?.functionName === '(idle)' || frames.some(({ url }) => url === 'node:inspector')) return
    const { place, name } = known.get(id) ?? placeOf(frames)
    known.set(id, { place, name })
    const us = timeDeltas[at] ?? 0
    places.set(place, (places.get(place) ?? 0) + us)
    names.set(name, (names.get(name) ?? 0) + us)
  })
  return { places, names }
}

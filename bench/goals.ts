import type { ContestResult } from './contest.js'
import type { Figure } from './figure.js'
import { IDLE_MEMORY, UPLOAD_MEMORY } from './scenes/memory.js'
import { EMPTY_START } from './scenes/start.js'
import { FLOOR, NODE_FLOOR, UNSYNCED_FLOOR } from './floor/contenders.js'
import { downloadName, rangeName } from './scenes/downloads.js'
import { ACCELERATED, proxyName } from './scenes/nginx.js'
import { FEW_NAME, GROWTH, MANY, MANY_START } from './scenes/growth.js'
import { LIST, ONE, PAGE_LIST, SLOT_PEER, SLOTS, UNSYNCED_SLOT_PEER } from './scenes/json.js'
import { uploadName } from './scenes/uploads.js'
import { KEYED_PEER, MEMORY_PEER } from './servers/from-memory.js'
import { PEERS } from './servers/peers.js'
import { ratioOf, spreadOf, sumRatioOf, type Measure, type Spread } from './statistics.js'

/** What is to be reached: a ratio of a contest, or a figure. */
export type Goal = { what: string, bound: number, atLeast: boolean } & (
  /** `floor`: contenders that do nothing but parts of the same work, of which none can be left out. */
  { contest: string, measure: Measure, contender: string, to: string, floor: readonly string[] } | { figure: string, unit: string }
)

/** A goal with what was found, and what its floor alone would reach; undefined where it was not measured. */
export interface Verdict { goal: Goal, found: Spread | undefined, floor: Spread | undefined, isReached: boolean }

const { nodeHttp, nodeHttpSynced, fastify, hashing } = PEERS
const UPLOAD = [hashing.name, NODE_FLOOR]
const RELAXED_UPLOAD = [hashing.name, UNSYNCED_FLOOR]

function faster (contest: string, bound: number, to: string, floor: readonly string[] = [], contender = 'voicemaild'): Goal {
  return { what: `${contest}: ${contender}, × ${to}`, bound, atLeast: true, contest, measure: 'opsPerSecond', contender, to, floor }
}

function cheaper (contest: string, bound: number, to: string, floor: readonly string[] = [], contender = 'voicemaild'): Goal {
  return { what: `${contest}: CPU of ${contender}, × ${to}`, bound, atLeast: false, contest, measure: 'cpuUsPerOp', contender, to, floor }
}

function figure (name: string, bound: number, unit: string): Goal {
  return { what: name, bound, atLeast: false, figure: name, unit }
}

export const GOALS: readonly Goal[] = [
  ...[16, 64].flatMap(connections => (['40 KB', '200 KB'] as const).flatMap(size => {
    const name = uploadName(size, connections)
    return [
      faster(name, 1.5, nodeHttpSynced.name, UPLOAD),
      faster(name, 2, fastify.name, UPLOAD),
      ...size === '40 KB' ? [faster(name, 0.6, FLOOR, UPLOAD), faster(name, 0.6, NODE_FLOOR, UPLOAD)] : [],
      faster(name, 0.8, nodeHttp.name, RELAXED_UPLOAD, 'voicemaild relaxed'),
      faster(name, 2, fastify.name, RELAXED_UPLOAD, 'voicemaild relaxed')
    ]
  })),
  ...[16, 64].flatMap(connections => [
    faster(uploadName('2 MB', connections), 0.9, nodeHttpSynced.name, UPLOAD),
    faster(uploadName('2 MB', connections), 0.9, nodeHttp.name, RELAXED_UPLOAD, 'voicemaild relaxed')
  ]),
  ...[1, 16, 64].flatMap(connections => [
    faster(downloadName('40 KB', connections), 2.5, nodeHttp.name, [MEMORY_PEER]),
    faster(downloadName('200 KB', connections), 2.5, nodeHttp.name, [MEMORY_PEER]),
    faster(downloadName('2 MB', connections), 1.5, nodeHttp.name, [MEMORY_PEER])
  ]),
  ...(['40 KB', '200 KB', '2 MB'] as const).map(size => faster(rangeName(size, 16), 1.5, nodeHttp.name, [MEMORY_PEER])),
  cheaper(proxyName('download'), 0.5, 'voicemaild', [], ACCELERATED),
  faster(SLOTS, 4, SLOT_PEER, [UNSYNCED_SLOT_PEER]),
  cheaper(LIST, 1.5, MEMORY_PEER, [KEYED_PEER]),
  cheaper(PAGE_LIST, 1.5, MEMORY_PEER, [KEYED_PEER]),
  cheaper(ONE, 1.5, MEMORY_PEER, [KEYED_PEER]),
  ...GROWTH.flatMap(name => [cheaper(name, 1.2, FEW_NAME, [], MANY), faster(name, 0.83, FEW_NAME, [], MANY)]),
  figure(UPLOAD_MEMORY, 150, 'MB'),
  figure(IDLE_MEMORY, 90, 'MB'),
  figure(EMPTY_START, 400, 'ms'),
  figure(MANY_START, 1000, 'ms')
]

export function judge (goals: readonly Goal[], contests: readonly ContestResult[], figures: readonly Figure[]): Verdict[] {
  return goals.map(goal => {
    const found = 'figure' in goal ? figureOf(goal.figure) : ratioIn(goal.contest, goal)
    const floor = 'figure' in goal || goal.floor.length === 0 ? undefined : floorIn(goal.contest, goal)
    return { goal, found, floor, isReached: found !== undefined && (goal.atLeast ? found.median >= goal.bound : found.median <= goal.bound) }
  })

  function figureOf (name: string): Spread | undefined {
    const values = figures.find(figure => figure.name === name)?.values
    return values === undefined ? undefined : spreadOf(values)
  }

  function floorIn (name: string, { measure, floor, to }: { measure: Measure, floor: readonly string[], to: string }): Spread | undefined {
    const contest = contests.find(contest => contest.name === name)
    return contest === undefined ? undefined : sumRatioOf(contest, measure, floor, to)
  }

  function ratioIn (name: string, { measure, contender, to }: { measure: Measure, contender: string, to: string }): Spread | undefined {
    const contest = contests.find(contest => contest.name === name)
    return contest === undefined ? undefined : ratioOf(contest, measure, contender, to)
  }
}

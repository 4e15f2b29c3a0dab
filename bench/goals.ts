import type { ContestResult } from './contest.js'
import type { Figure } from './figure.js'
import { IDLE_MEMORY, UPLOAD_MEMORY } from './scenes/memory.js'
import { EMPTY_START } from './scenes/start.js'
import { FLOOR, NODE_FLOOR } from './floor/contenders.js'
import { downloadName, rangeName } from './scenes/downloads.js'
import { FEW_NAME, GROWTH, MANY, MANY_START } from './scenes/growth.js'
import { LIST, MEMORY_PEER, ONE, PAGE_LIST, SLOT_PEER, SLOTS } from './scenes/json.js'
import { uploadName } from './scenes/uploads.js'
import { PEERS } from './servers/peers.js'
import { ratioOf, spreadOf, type Measure, type Spread } from './statistics.js'

/** What is to be reached: a ratio of a contest, or a figure. */
export type Goal = { what: string, bound: number, atLeast: boolean } & (
  { contest: string, measure: Measure, contender: string, to: string } | { figure: string, unit: string }
)

/** A goal with what was found; undefined where it was not measured. */
export interface Verdict { goal: Goal, found: Spread | undefined, isReached: boolean }

const { nodeHttp, nodeHttpSynced, fastify } = PEERS

function faster (contest: string, bound: number, to: string, contender = 'voicemaild'): Goal {
  return { what: `${contest}: ${contender}, × ${to}`, bound, atLeast: true, contest, measure: 'opsPerSecond', contender, to }
}

function cheaper (contest: string, bound: number, to: string, contender = 'voicemaild'): Goal {
  return { what: `${contest}: CPU of ${contender}, × ${to}`, bound, atLeast: false, contest, measure: 'cpuUsPerOp', contender, to }
}

function figure (name: string, bound: number, unit: string): Goal {
  return { what: name, bound, atLeast: false, figure: name, unit }
}

export const GOALS: readonly Goal[] = [
  ...[16, 64].flatMap(connections => (['40 KB', '200 KB'] as const).flatMap(size => {
    const name = uploadName(size, connections)
    return [
      faster(name, 1.5, nodeHttpSynced.name),
      faster(name, 2, fastify.name),
      ...size === '40 KB' ? [faster(name, 0.6, FLOOR), faster(name, 0.6, NODE_FLOOR)] : [],
      faster(name, 0.8, nodeHttp.name, 'voicemaild relaxed'),
      faster(name, 2, fastify.name, 'voicemaild relaxed')
    ]
  })),
  ...[16, 64].flatMap(connections => [
    faster(uploadName('2 MB', connections), 0.9, nodeHttpSynced.name),
    faster(uploadName('2 MB', connections), 0.9, nodeHttp.name, 'voicemaild relaxed')
  ]),
  ...[1, 16, 64].flatMap(connections => [
    faster(downloadName('40 KB', connections), 2.5, nodeHttp.name),
    faster(downloadName('200 KB', connections), 2.5, nodeHttp.name),
    faster(downloadName('2 MB', connections), 1.5, nodeHttp.name)
  ]),
  ...(['40 KB', '200 KB', '2 MB'] as const).map(size => faster(rangeName(size, 16), 1.5, nodeHttp.name)),
  faster(SLOTS, 4, SLOT_PEER),
  cheaper(LIST, 1.5, MEMORY_PEER),
  cheaper(PAGE_LIST, 1.5, MEMORY_PEER),
  cheaper(ONE, 1.5, MEMORY_PEER),
  ...GROWTH.flatMap(name => [cheaper(name, 1.2, FEW_NAME, MANY), faster(name, 0.83, FEW_NAME, MANY)]),
  figure(UPLOAD_MEMORY, 150, 'MB'),
  figure(IDLE_MEMORY, 90, 'MB'),
  figure(EMPTY_START, 400, 'ms'),
  figure(MANY_START, 1000, 'ms')
]

export function judge (goals: readonly Goal[], contests: readonly ContestResult[], figures: readonly Figure[]): Verdict[] {
  return goals.map(goal => {
    const found = 'figure' in goal ? figureOf(goal.figure) : ratioIn(goal.contest, goal)
    return { goal, found, isReached: found !== undefined && (goal.atLeast ? found.median >= goal.bound : found.median <= goal.bound) }
  })

  function figureOf (name: string): Spread | undefined {
    const values = figures.find(figure => figure.name === name)?.values
    return values === undefined ? undefined : spreadOf(values)
  }

  function ratioIn (name: string, { measure, contender, to }: { measure: Measure, contender: string, to: string }): Spread | undefined {
    const contest = contests.find(contest => contest.name === name)
    return contest === undefined ? undefined : ratioOf(contest, measure, contender, to)
  }
}

import type { ContestResult, Sample } from './contest.js'

/** The middle of several values, and their ends. */
export interface Spread { median: number, least: number, most: number }

export function spreadOf (values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = (sorted.length - 1) / 2
  const median = ((sorted[Math.floor(middle)] ?? NaN) + (sorted[Math.ceil(middle)] ?? NaN)) / 2
  return { median, least: sorted[0] ?? NaN, most: sorted.at(-1) ?? NaN }
}

export type Measure = 'opsPerSecond' | 'cpuUsPerOp'

/** One contender against another, each round by itself: what disturbs a round disturbs both. Undefined where one did not take part. */
export function ratioOf ({ samples }: ContestResult, measure: Measure, contender: string, to: string): Spread | undefined {
  const [ours, theirs] = [samples.get(contender), samples.get(to)]
  if (ours === undefined || theirs === undefined) return undefined
  return spreadOf(ours.map((sample, round) => sample[measure] / (theirs[round]?.[measure] ?? NaN)))
}

/** What contenders would reach that had to do their work one after the other, on the same core, against another one. */
export function sumRatioOf ({ samples }: ContestResult, measure: Measure, parts: readonly string[], to: string): Spread | undefined {
  const all = [...parts, to].map(name => samples.get(name)?.map(sample => measure === 'cpuUsPerOp' ? sample[measure] : 1e6 / sample[measure]))
  const [theirs, ...ours] = all.reverse()
  if (theirs === undefined || ours.includes(undefined)) return undefined
  return spreadOf(theirs.map((us, round) => {
    const sum = ours.reduce((sum, part) => sum + (part?.[round] ?? NaN), 0)
    return measure === 'cpuUsPerOp' ? sum / us : us / sum
  }))
}

export function spreadOver (samples: readonly Sample[], measure: Exclude<keyof Sample, 'operations'>): Spread {
  return spreadOf(samples.map(sample => sample[measure]))
}

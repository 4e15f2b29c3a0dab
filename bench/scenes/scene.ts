import type { Audio, Size } from '../audio.js'
import type { Contest } from '../contest.js'
import type { Stage } from '../stage.js'

/** What all scenes have. */
export interface Props {
  stage: Stage
  audio: Readonly<Record<Size, Audio>>
  /** Whether this is the quick run, which leaves out what it does not have to answer. */
  isQuick: boolean
  rounds: number
  /** How long a run is. */
  seconds: number
}

/** Contests that share their servers: these are started once, and stopped after the last one. */
export interface Scene {
  contests: readonly string[]
  prepare: (isWanted: (contest: string) => boolean) => Promise<Contest[]>
}

/** The runs of a contest, the one that warms up included. */
export function runsOf ({ rounds }: Pick<Props, 'rounds'>): number {
  return rounds + 1
}

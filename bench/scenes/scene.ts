import type { Audio, Size } from '../audio.js'
import type { Contest } from '../contest.js'
import type { Figure } from '../figure.js'
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
  /** How many voicemails are many. */
  voicemails: number
  tell: (line: string) => void
}

/** Contests that share their servers, which are stopped after the last one; or figures, that are measured at once. */
export interface Scene {
  /** Of contests and figures. */
  names: readonly string[]
  prepare: (isWanted: (name: string) => boolean) => Promise<{ contests?: Contest[], figures?: Figure[] }>
}

/** Of operations, where time alone ends a run. */
export const NO_LIMIT = 10_000_000

/** How long a server is warmed up that has just started, in runs, and one that has done something else before. */
const [FIRST_WARM_UP, NEXT_WARM_UP] = [2, 0.4]

/** A run of so many seconds, or operations at most, and the shorter one before that warms up; longer for the first contest of a scene. */
export function extents (seconds: number, operations: number, isFirst: boolean): Pick<Contest, 'extent' | 'warmUp'> {
  const part = isFirst ? FIRST_WARM_UP : NEXT_WARM_UP
  return { extent: { seconds, operations }, warmUp: { seconds: seconds * part, operations: Math.ceil(operations * part) } }
}

export function over (connections: number): string {
  return connections === 1 ? '1 connection' : `${connections} connections`
}

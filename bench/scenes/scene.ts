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

/** How long a server is warmed up, in runs: V8 compiles what is new to it for some thousands of requests. */
const [NEW_WARM_UP, KNOWN_WARM_UP] = [4, 0.4]

/** A run of so many seconds, or operations at most, and the one before that warms up; longer where the servers have not done it before. */
export function extents (seconds: number, operations: number, isNew: boolean): Pick<Contest, 'extent' | 'warmUp'> {
  const part = isNew ? NEW_WARM_UP : KNOWN_WARM_UP
  return { extent: { seconds, operations }, warmUp: { seconds: seconds * part, operations: Math.ceil(operations * part) } }
}

export function over (connections: number): string {
  return connections === 1 ? '1 connection' : `${connections} connections`
}

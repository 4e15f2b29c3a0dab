import { tmpdir } from 'node:os'
import { parseArgs } from 'node:util'

export interface Options {
  isQuick: boolean
  /** Whether to show where the time of voicemaild goes, instead of comparing it. */
  isProfile: boolean
  /** What a measure has in its name to be run; undefined for all. */
  only: string | undefined
  rounds: number
  /** How long one run is. */
  seconds: number
  /** How many voicemails the large data folder has. */
  voicemails: number
  /** Where the folder of the run is made: the disk that is measured. */
  dataFolder: string
}

export const USAGE = 'npm run bench -- [--quick | --profile] [--only PART-OF-A-NAME] [--rounds N] [--seconds S] [--voicemails N] [--data DIR]'

/** Throws where the command line is not understood. */
export function readOptions (args: string[]): Options {
  const { values } = parseArgs({
    args,
    options: {
      quick: { type: 'boolean', default: false },
      profile: { type: 'boolean', default: false },
      only: { type: 'string' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      voicemails: { type: 'string' },
      data: { type: 'string', default: tmpdir() }
    }
  })
  return {
    isQuick: values.quick,
    isProfile: values.profile,
    only: values.only?.toLowerCase(),
    rounds: positive('--rounds', values.rounds) ?? 3,
    seconds: positive('--seconds', values.seconds) ?? (values.quick ? 0.4 : 0.8),
    voicemails: positive('--voicemails', values.voicemails) ?? 1_000_000,
    dataFolder: values.data
  }
}

function positive (name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (!(value > 0)) throw new Error(`${name}: expected a number over 0, found ${text}`)
  return name === '--seconds' ? value : Math.ceil(value)
}

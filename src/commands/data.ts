import { chmod, mkdir, readdir } from 'node:fs/promises'
import type { Config } from '../config.js'
import type { Clock } from '../domain/clock.js'
import { openKeys, type Keys } from '../keys.js'
import { createAccountStore, type AccountStore } from '../stores/account-store.js'
import { openAudioStore, type AudioStore } from '../stores/audio-store.js'
import { openDatabase } from '../stores/database.js'
import { createEventStore, type EventStore } from '../stores/event-store.js'
import { createUpkeepStore, type UpkeepStore } from '../stores/upkeep-store.js'
import { createVoicemailStore, type VoicemailStore } from '../stores/voicemail-store.js'
import { CommandError } from './output.js'

/** An open data folder: its stores and its secrets. */
export interface Data {
  accountStore: AccountStore
  voicemailStore: VoicemailStore
  audioStore: AudioStore
  eventStore: EventStore
  upkeepStore: UpkeepStore
  /** Writes a consistent copy of the rows to a path. */
  copyRows: (path: string) => Promise<void>
  probeRows: () => void
  keys: Keys
  clock: Clock
  close: () => Promise<void>
}

/** Opens the data folder, making what is missing: folders (0700), database, keys (0600); audio is opened to the group where nginx sends it. Throws CommandError where it cannot. */
export async function openData (config: Config, clock: Clock): Promise<Data> {
  const { dataFolder, durability, accelPrefix } = config
  return await inDataFolder(dataFolder, async () => {
    const audioStore = await openAudioStore({ dataFolder, durability, groupReads: accelPrefix !== undefined })
    const keys = openKeys(config)
    const database = openDatabase(dataFolder, { durability })
    return {
      accountStore: createAccountStore(database),
      voicemailStore: createVoicemailStore(database),
      audioStore,
      eventStore: createEventStore(database),
      upkeepStore: createUpkeepStore(database),
      copyRows: database.copyTo,
      probeRows: database.probe,
      keys,
      clock,
      close: database.close
    }
  })
}

/** Makes the data folder where it is missing, and does what needs it. What the system refuses is told as that folder's fault. */
export async function inDataFolder<T> (dataFolder: string, open: () => Promise<T>): Promise<T> {
  try {
    await mkdir(dataFolder, { recursive: true, mode: 0o700 })
    // An empty folder, as `storage` is in a clone, may be open to everybody; later its modes are the operator's.
    if ((await readdir(dataFolder)).every(name => name === '.gitkeep')) await chmod(dataFolder, 0o700)
    return await open()
  } catch (error) {
    if (!(error instanceof Error && 'code' in error)) throw error
    throw new CommandError(`DATA_DIR: expected a folder that can be written, found ${dataFolder} (${error.message}).`)
  }
}

/** Opens the data folder for one command and closes it after, whatever happens. */
export async function withData<T> (config: Config, clock: Clock, run: (data: Data) => Promise<T>): Promise<T> {
  const data = await openData(config, clock)
  try {
    return await run(data)
  } finally {
    await data.close()
  }
}

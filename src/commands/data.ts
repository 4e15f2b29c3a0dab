import { mkdir } from 'node:fs/promises'
import type { Config } from '../config.js'
import { createAccounts, type Accounts } from '../domain/accounts.js'
import type { Clock } from '../domain/clock.js'
import { openKeys, type Keys } from '../keys.js'
import { createAccountStore, type AccountStore } from '../stores/account-store.js'
import { openAudioStore, type AudioStore } from '../stores/audio-store.js'
import { openDatabase } from '../stores/database.js'
import { createEventStore, type EventStore } from '../stores/event-store.js'
import { createUpkeepStore, type UpkeepStore } from '../stores/upkeep-store.js'
import { createVoicemailStore, type VoicemailStore } from '../stores/voicemail-store.js'

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

/** Opens the data folder, making what is missing: folders (0700), database, keys (0600). */
export async function openData (config: Config, clock: Clock): Promise<Data> {
  const { dataFolder, durability } = config
  await mkdir(dataFolder, { recursive: true, mode: 0o700 })
  const audioStore = await openAudioStore({ dataFolder, durability })
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
}

/** Opens the data folder for one command and closes it after, whatever happens. */
export async function withAccounts (config: Config, clock: Clock, run: (accounts: Accounts) => Promise<void>): Promise<void> {
  const data = await openData(config, clock)
  try {
    await run(createAccounts(data))
  } finally {
    await data.close()
  }
}

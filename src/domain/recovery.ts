import type { AudioStore } from '../stores/audio-store.js'
import type { VoicemailStore } from '../stores/voicemail-store.js'
import { finishRemovals } from './removed-files.js'

/** How many of each there were; `failed` are the names of files that the disk did not let go. */
export interface Recovered { uploads: number, removals: number, failed: string[] }

/**
 * Ends what a dead process had begun: half-written uploads go, files that were placed without a row too, and deletions are
 * carried out. What a broken disk keeps is no reason not to start. Only for whoever has the folder's lock.
 */
export async function recover (stores: { voicemailStore: VoicemailStore, audioStore: AudioStore }): Promise<Recovered> {
  const { voicemailStore, audioStore } = stores
  const recovered: Recovered = { uploads: 0, removals: 0, failed: [] }
  for (const fileName of await audioStore.leftovers()) {
    try {
      await audioStore.settle(fileName, await voicemailStore.isFileKnown(fileName))
      recovered.uploads += 1
    } catch {
      recovered.failed.push(fileName)
    }
  }
  try {
    recovered.removals = await finishRemovals(stores)
  } catch {
    recovered.failed.push(...await voicemailStore.pendingRemovals())
  }
  return recovered
}

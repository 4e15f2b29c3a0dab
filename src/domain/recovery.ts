import type { AudioStore } from '../stores/audio-store.js'
import type { VoicemailStore } from '../stores/voicemail-store.js'
import { finishRemovals } from './removed-files.js'

/**
 * Ends what a dead process had begun: half-written uploads go, files that were placed without a row too, and deletions are
 * carried out. Only for whoever has the folder's lock. Returns how many of each there were.
 */
export async function recover (stores: { voicemailStore: VoicemailStore, audioStore: AudioStore }): Promise<{ uploads: number, removals: number }> {
  const { voicemailStore, audioStore } = stores
  const leftovers = await audioStore.leftovers()
  for (const fileName of leftovers) await audioStore.settle(fileName, await voicemailStore.isFileKnown(fileName))
  return { uploads: leftovers.length, removals: await finishRemovals(stores) }
}

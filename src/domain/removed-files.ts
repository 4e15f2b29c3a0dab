import type { AudioStore } from '../stores/audio-store.js'
import type { VoicemailStore } from '../stores/voicemail-store.js'

/**
 * Takes files away whose removal was noted with the rows that named them, and then forgets the notes. A note that stays, because the
 * disk is full, does no harm: the next start finds nothing to remove.
 */
export async function removeFiles (
  { voicemailStore, audioStore }: { voicemailStore: VoicemailStore, audioStore: AudioStore }, fileNames: string[]
): Promise<void> {
  await audioStore.remove(fileNames)
  await voicemailStore.forgetRemovals(fileNames).catch(() => {})
}

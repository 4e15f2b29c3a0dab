import { AppError } from '../errors.js'
import type { AudioStore } from '../stores/audio-store.js'
import type { VoicemailStore } from '../stores/voicemail-store.js'

/**
 * Takes files away whose removal was noted with the rows that named them, and then forgets the notes. A full disk keeps nobody from
 * deleting: where it keeps a file or a note, `finishRemovals` comes back to them, and to what a broken disk kept, too.
 */
export async function removeFiles (
  { voicemailStore, audioStore }: { voicemailStore: VoicemailStore, audioStore: AudioStore }, fileNames: string[]
): Promise<void> {
  try {
    await audioStore.remove(fileNames)
  } catch (error) {
    if (error instanceof AppError && error.code === 'insufficient_storage') return
    throw error
  }
  await voicemailStore.forgetRemovals(fileNames).catch(() => {})
}

/**
 * Takes away what was noted and is still there: a process died in between, or the disk would not let it go. One that still does not go
 * keeps no other, and its error is thrown at the end. Returns how many there were.
 */
export async function finishRemovals (stores: { voicemailStore: VoicemailStore, audioStore: AudioStore }): Promise<number> {
  const fileNames = await stores.voicemailStore.pendingRemovals()
  try {
    await removeFiles(stores, fileNames)
  } catch (error) {
    for (const fileName of fileNames) await removeFiles(stores, [fileName]).catch(() => {})
    throw error
  }
  return fileNames.length
}

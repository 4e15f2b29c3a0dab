import { disk } from './disk.js'

/** Resolves when the disk knows what was in the folder when it was called. */
export type FolderSync = (path: string) => Promise<void>

/** Makes a disk know the entries of folders. Whoever comes while a folder is being synced shares the next sync of it with all who wait for it. */
export function createFolderSync (): FolderSync {
  const running = new Map<string, { done: Promise<void>, next: Promise<void> | undefined }>()

  async function sync (path: string): Promise<void> {
    const mine = { done: syncPath(path), next: undefined }
    running.set(path, mine)
    try {
      await mine.done
    } finally {
      if (running.get(path) === mine) running.delete(path)
    }
  }

  return async path => {
    const now = running.get(path)
    if (now === undefined) return await sync(path)
    now.next ??= now.done.catch(() => {}).then(async () => { await sync(path) })
    await now.next
  }
}

/** Makes the disk know the bytes of a file, or the entries of a folder. */
export async function syncPath (path: string): Promise<void> {
  const fd = await disk.open(path, 'r', undefined)
  try {
    await disk.sync(fd)
  } finally {
    disk.close(fd)
  }
}

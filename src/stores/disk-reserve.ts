import { randomFillSync } from 'node:crypto'
import { rmSync, statfsSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Room on the disk that is kept for the rows: on a full disk even a deletion has to be written down before anything goes. */
export interface DiskReserve {
  /** Lets go of the room. Returns whether there was any. */
  giveUp: () => boolean
  /** Takes the room where it is not held and the disk has plenty. Never throws: without it everything works but on a full disk. */
  take: () => void
  /** Takes what room there is, for the next start, which finds no disk that is fuller. */
  takeTheLast: () => void
}

const RESERVE_BYTES = 1024 * 1024
/** From here on nobody misses what is taken. */
const PLENTY_BYTES = 16 * RESERVE_BYTES

/** The reserve of a data folder is a file in it, shared by all processes that work there. */
export function createDiskReserve (dataFolder: string): DiskReserve {
  const path = join(dataFolder, 'reserve')
  const heldBytes = (): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0

  const giveUp = (): boolean => {
    try {
      const isHeld = heldBytes() > 0
      rmSync(path, { force: true })
      return isHeld
    } catch {
      return false
    }
  }

  const takeFrom = (enoughBytes: number): void => {
    try {
      if (heldBytes() === RESERVE_BYTES) return
      const { bavail, bsize } = statfsSync(dataFolder)
      const freeBytes = bavail * bsize
      if (freeBytes < enoughBytes) return
      // Noise, for file systems that compress.
      writeFileSync(path, randomFillSync(Buffer.alloc(Math.min(freeBytes, RESERVE_BYTES))), { mode: 0o600 })
    } catch {
      // The disk had less than it said: what has been written is held.
    }
  }

  return { giveUp, take: () => { takeFrom(PLENTY_BYTES) }, takeTheLast: () => { takeFrom(1) } }
}

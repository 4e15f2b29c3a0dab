/** What one writer gathers: fewer and larger writes cost less. */
const WRITE_BYTES = 256 * 1024
/** What all of them together hold: a thousand slow senders cost no more than 32 quick ones. */
const HELD_BYTES = 32 * WRITE_BYTES
/** What each may hold however many there are. */
const SMALLEST_BYTES = 4 * 1024
const NOTHING = Buffer.alloc(0)

/**
 * Gathers chunks for one file, which must not change any more. Large ones are held as they are; small ones are copied together, because a
 * chunk of its own costs more than the few bytes that a slow sender has in it.
 */
export interface GatheredWrites {
  add: (chunk: Uint8Array) => Promise<void>
  flush: () => Promise<void>
  /** Lets go of the memory, whatever is in it. */
  end: () => void
}

/** Makes writers that share one bound. `write` has done with its bytes, which come in pieces, when it resolves. */
export function createGathering (): (write: (pieces: readonly Uint8Array[]) => Promise<void>) => GatheredWrites {
  let heldBytes = 0

  return write => {
    let pieces: Uint8Array[] = []
    /** What the pieces hold, and the copy of small chunks with the room in it. */
    let ownBytes = 0
    let copy = NOTHING
    let copiedBytes = 0

    const hold = (bytes: number): void => {
      ownBytes += bytes
      heldBytes += bytes
    }
    const endCopy = (): void => {
      if (copiedBytes > 0) pieces.push(copy.subarray(0, copiedBytes))
      copy = NOTHING
      copiedBytes = 0
    }
    const letGo = (): void => {
      pieces = []
      hold(-ownBytes)
    }
    const flush = async (): Promise<void> => {
      endCopy()
      if (pieces.length > 0) await write(pieces)
      letGo()
    }

    return {
      add: async chunk => {
        if (chunk.length >= SMALLEST_BYTES) {
          endCopy()
          pieces.push(chunk)
          hold(chunk.length)
        } else {
          if (copiedBytes + chunk.length > copy.length) {
            endCopy()
            copy = Buffer.allocUnsafeSlow(SMALLEST_BYTES)
            hold(SMALLEST_BYTES)
          }
          copy.set(chunk, copiedBytes)
          copiedBytes += chunk.length
        }
        if (ownBytes >= WRITE_BYTES || (heldBytes > HELD_BYTES && ownBytes > SMALLEST_BYTES)) await flush()
      },
      flush,
      end: () => {
        endCopy()
        letGo()
      }
    }
  }
}

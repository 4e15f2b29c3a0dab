/** What one writer gathers: fewer and larger writes cost less. */
const WRITE_BYTES = 256 * 1024
/** What all of them together hold: a thousand slow senders cost no more than 32 quick ones. */
const HELD_BYTES = 32 * WRITE_BYTES
/** What each may hold however many there are. */
const SMALLEST_BYTES = 4 * 1024

/** Gathers small chunks for one file. The bytes are copied: a chunk of its own costs more than the few bytes that a slow sender has in it. */
export interface GatheredWrites {
  add: (chunk: Uint8Array) => Promise<void>
  flush: () => Promise<void>
  /** Lets go of the memory, whatever is in it. */
  end: () => void
}

/** Makes writers that share one bound. `write` has done with its bytes when it resolves. */
export function createGathering (): (write: (bytes: Uint8Array) => Promise<void>) => GatheredWrites {
  let heldBytes = 0

  return write => {
    let held = Buffer.alloc(0)
    let usedBytes = 0

    const hold = (bytes: number): void => {
      heldBytes += bytes - held.length
      const larger = Buffer.allocUnsafeSlow(bytes)
      held.copy(larger, 0, 0, usedBytes)
      held = larger
    }
    const flush = async (): Promise<void> => {
      const bytes = held.subarray(0, usedBytes)
      usedBytes = 0
      if (bytes.length > 0) await write(bytes)
    }

    return {
      add: async chunk => {
        const wantedBytes = usedBytes + chunk.length
        if (wantedBytes > held.length && wantedBytes <= WRITE_BYTES) {
          const bytes = Math.min(WRITE_BYTES, Math.max(SMALLEST_BYTES, held.length * 2, wantedBytes))
          if (heldBytes + bytes - held.length <= HELD_BYTES) hold(bytes)
          else if (held.length === 0) hold(SMALLEST_BYTES)
        }
        if (wantedBytes > held.length) await flush()
        if (chunk.length > held.length) {
          await write(chunk)
          return
        }
        held.set(chunk, usedBytes)
        usedBytes += chunk.length
        if (usedBytes === WRITE_BYTES) await flush()
      },
      flush,
      end: () => {
        usedBytes = 0
        hold(0)
      }
    }
  }
}

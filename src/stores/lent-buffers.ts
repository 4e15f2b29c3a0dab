/** Memory for the bytes of one answer. */
export interface LentBuffer {
  /** As many bytes as were asked for. What is in them is left over from whoever had them before. */
  bytes: Buffer
  /** To be called once, when nobody looks at the bytes any more. Memory that never comes back is collected like any other. */
  giveBack: () => void
}

const SMALLEST_BYTES = 16 * 1024
/** What is kept for the next ones, all sizes together. */
const KEPT_BYTES = 8 * 1024 * 1024

/**
 * Lends memory that was used before: new memory costs a page fault for every 4 KB, and for every 64 MB of it V8 collects all of its heap, which
 * is twice the work of sending the bytes. Sizes are powers of two, and what was given back last goes first, while the processor still has it.
 */
export function createLending (): (length: number) => LentBuffer {
  const kept = new Map<number, Buffer[]>()
  let keptBytes = 0

  return length => {
    const size = 2 ** Math.ceil(Math.log2(Math.max(length, SMALLEST_BYTES)))
    const ofSize = kept.get(size) ?? []
    kept.set(size, ofSize)
    const old = ofSize.pop()
    if (old !== undefined) keptBytes -= size
    const whole = old ?? Buffer.allocUnsafeSlow(size)
    return {
      bytes: whole.subarray(0, length),
      giveBack: () => {
        if (keptBytes + size > KEPT_BYTES) return
        keptBytes += size
        ofSize.push(whole)
      }
    }
  }
}

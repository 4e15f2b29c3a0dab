import { AppError } from '../errors.js'

/** What is asked of the sender of an upload. */
export interface PaceLimits {
  /** A sender that is silent for so long is cut off. */
  idleTimeoutMs: number
  /** Over each stretch of 30 seconds that were spent waiting for it; 0 for no limit. */
  minBytesPerSecond: number
}

/** Watches over one sender. Only the time spent waiting for it counts: a slow disk of ours is not its fault. */
export interface SenderPace {
  /** How long to wait for it now. */
  patienceMs: () => number
  /** It kept us waiting for so long, and then came with so many bytes; none where our patience had ended. Throws `sender_too_slow`. */
  waited: (ms: number, bytes: number) => void
}

const WINDOW_MS = 30_000
/** However little it has still to send: nobody waits for it any more. */
const CUT_OFF = { connection: 'close' }

export function createSenderPace ({ idleTimeoutMs, minBytesPerSecond }: PaceLimits): SenderPace {
  let windowMs = 0
  let windowBytes = 0
  let silentMs = 0
  const watchesRate = minBytesPerSecond > 0

  return {
    patienceMs: () => Math.max(1, Math.min(idleTimeoutMs - silentMs, watchesRate ? WINDOW_MS - windowMs : Infinity)),
    waited: (ms, bytes) => {
      silentMs = bytes > 0 ? 0 : silentMs + ms
      if (silentMs >= idleTimeoutMs) throw new AppError('sender_too_slow', `Nothing came for ${idleTimeoutMs / 1000} seconds.`, { headers: CUT_OFF })
      windowMs += ms
      windowBytes += bytes
      if (!watchesRate || windowMs < WINDOW_MS) return
      const rate = Math.round(windowBytes / windowMs * 1000)
      if (rate < minBytesPerSecond) {
        throw new AppError('sender_too_slow', `The upload came at ${rate} bytes per second.`, {
          expected: minBytesPerSecond, found: rate, headers: CUT_OFF
        })
      }
      windowMs = 0
      windowBytes = 0
    }
  }
}

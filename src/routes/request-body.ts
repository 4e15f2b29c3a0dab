import type { IncomingMessage } from 'node:http'
import { AppError } from '../errors.js'

export interface BodyLimits {
  /** A sender that is silent for so long is cut off. */
  idleTimeoutMs: number
}

/**
 * The body of a request, chunk by chunk as its reader asks for them. Throws `body_incomplete` when it ends before its length or
 * the sender goes away, `sender_too_slow`, and the reason of `signal` when that is aborted. Ending early leaves the
 * request as it is: what to do with the rest of the body is for the answer to decide.
 */
export async function * readBody (request: IncomingMessage, signal: AbortSignal, { idleTimeoutMs }: BodyLimits): AsyncGenerator<Uint8Array> {
  let wake = (): void => {}
  const onEvent = (): void => { wake() }
  const events = ['readable', 'end', 'close'] as const
  for (const event of events) request.on(event, onEvent)
  // Stays: an error that nobody listens to ends the process.
  request.on('error', onEvent)
  signal.addEventListener('abort', onEvent)
  try {
    for (;;) {
      signal.throwIfAborted()
      const chunk: unknown = request.read()
      if (chunk instanceof Uint8Array) {
        yield chunk
        continue
      }
      // Whoever sent everything and went away without waiting for the answer has sent everything.
      if (request.readableEnded || (request.destroyed && request.complete)) return
      if (request.destroyed) throw new AppError('body_incomplete', 'The body ended before its length.')
      let isIdle = false
      await new Promise<void>(resolve => {
        const timer = setTimeout(() => {
          // Where it is this process that was held up, what has come meanwhile is read first.
          setImmediate(() => {
            isIdle = true
            resolve()
          })
        }, idleTimeoutMs)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      if (isIdle) throw new AppError('sender_too_slow', `Nothing came for ${idleTimeoutMs / 1000} seconds.`)
    }
  } finally {
    for (const event of events) request.off(event, onEvent)
    signal.removeEventListener('abort', onEvent)
  }
}

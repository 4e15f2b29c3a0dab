import type { IncomingMessage } from 'node:http'
import { createSenderPace, type PaceLimits } from '../domain/sender-pace.js'
import { AppError } from '../errors.js'

/**
 * The body of a request, chunk by chunk as its reader asks for them. Throws `body_incomplete` when it ends before its length or
 * the sender goes away, `sender_too_slow`, and the reason of `signal` when that is aborted. Ending early leaves the
 * request as it is: what to do with the rest of the body is for the answer to decide.
 */
export async function * readBody (request: IncomingMessage, signal: AbortSignal, limits: PaceLimits): AsyncGenerator<Uint8Array> {
  const pace = createSenderPace(limits)
  let wake = (): void => {}
  const onEvent = (): void => { wake() }
  const events = ['readable', 'end', 'close'] as const
  for (const event of events) request.on(event, onEvent)
  // Stays: an error that nobody listens to ends the process.
  request.on('error', onEvent)
  signal.addEventListener('abort', onEvent)
  try {
    let waitedMs = 0
    for (;;) {
      signal.throwIfAborted()
      const chunk: unknown = request.read()
      if (chunk instanceof Uint8Array) {
        pace.waited(waitedMs, chunk.byteLength)
        waitedMs = 0
        yield chunk
        continue
      }
      // Whoever sent everything and went away without waiting for the answer has sent everything.
      if (request.readableEnded || (request.destroyed && request.complete)) return
      if (request.destroyed) throw new AppError('body_incomplete', 'The body ended before its length.')
      pace.waited(waitedMs, 0)
      const sinceMs = performance.now()
      await new Promise<void>(resolve => {
        // Where it is this process that was held up, what has come meanwhile is read first.
        const timer = setTimeout(() => { setImmediate(resolve) }, pace.patienceMs())
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      waitedMs = performance.now() - sinceMs
    }
  } finally {
    for (const event of events) request.off(event, onEvent)
    signal.removeEventListener('abort', onEvent)
  }
}

import type { IncomingMessage } from 'node:http'
import { createSenderPace, type PaceLimits } from '../domain/sender-pace.js'
import type { Readable } from 'node:stream'
import { AppError } from '../errors.js'
import { streamOf } from '../plugins/http2-stream.js'

const EVENTS = ['readable', 'end', 'close'] as const

/**
 * The body of a request, chunk by chunk as its reader asks for them. Throws `body_incomplete` when it ends before its length or
 * the sender goes away, `sender_too_slow`, and the reason of `signal` when that is aborted. Ending early leaves the
 * request as it is: what to do with the rest of the body is for the answer to decide.
 */
export async function * readBody (request: IncomingMessage, signal: AbortSignal, limits: PaceLimits): AsyncGenerator<Uint8Array> {
  const stream = streamOf(request)
  const source = stream ?? request
  // Stays: an error that nobody listens to ends the process.
  source.on('error', ignore)
  let receivedBytes = 0
  // A stream of HTTP/2 that was broken off ends like any other.
  const isComplete = (): boolean => stream === undefined
    ? request.complete
    : stream.aborted ? Number(request.headers['content-length']) === receivedBytes : stream.readableEnded
  let waiting: Waiting | undefined
  try {
    for (;;) {
      signal.throwIfAborted()
      const chunk: unknown = source.read()
      if (chunk instanceof Uint8Array) {
        receivedBytes += chunk.byteLength
        waiting?.ended(chunk.byteLength)
        yield chunk
        continue
      }
      // Whoever sent everything and went away without waiting for the answer has sent everything.
      if (isComplete()) return
      if (source.destroyed || stream?.aborted === true) throw new AppError('body_incomplete', 'The body ended before its length.')
      // A small body is all there by now, and nothing is set up for it.
      waiting ??= waitFor(source, signal, limits)
      await waiting.forMore()
    }
  } finally {
    waiting?.end()
  }
}

function ignore (): void {}

interface Waiting {
  /** Resolves when there is something to look at. Throws `sender_too_slow`. */
  forMore: () => Promise<void>
  /** It came with so many bytes. Throws `sender_too_slow`. */
  ended: (bytes: number) => void
  end: () => void
}

function waitFor (source: Readable, signal: AbortSignal, limits: PaceLimits): Waiting {
  const pace = createSenderPace(limits)
  let waitedMs = 0
  let wake = ignore
  const onEvent = (): void => { wake() }
  for (const event of EVENTS) source.on(event, onEvent)
  signal.addEventListener('abort', onEvent)

  const ended = (bytes: number): void => {
    pace.waited(waitedMs, bytes)
    waitedMs = 0
  }
  return {
    forMore: async () => {
      ended(0)
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
    },
    ended,
    end: () => {
      for (const event of EVENTS) source.off(event, onEvent)
      signal.removeEventListener('abort', onEvent)
    }
  }
}

import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { PassThrough, type Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'

/** How long a sender may go on after it has been answered. */
const DRAIN_TIMEOUT_MS = 20_000
/** This much is read after an answer without a word, and the connection kept. */
const SMALL_BODY_BYTES = 64 * 1024

/**
 * An answer that is given before the request's body was read has to reach a sender that is still sending. So it is written at
 * once, the rest of the body is drained, for a while, and only then does the answer end and the connection close: closing
 * at once would reset it (RFC 9112 section 9.6), and the sender would see that instead of the answer.
 */
export function drainUnreadBodies (app: FastifyInstance, timeoutMs = DRAIN_TIMEOUT_MS): void {
  const closing = new WeakSet<Socket>()
  // What was sent behind such a body must not be processed any more: its sender could not be told.
  app.addHook('onRequest', (request, reply, done) => {
    if (closing.has(request.raw.socket)) reply.hijack()
    done()
  })
  app.addHook('onSend', (request, reply, payload, done) => {
    if (request.raw.complete || request.raw.destroyed) {
      done(null, payload)
      return
    }
    // Whatever waits for `readable` has been told to let go by now, but its leaving counts from the next tick on.
    setImmediate(() => { request.raw.resume() })
    if (!hasMuchLeft(request.raw) || !(typeof payload === 'string' || Buffer.isBuffer(payload))) {
      done(null, payload)
      return
    }
    closing.add(request.raw.socket)
    reply.headers({ connection: 'close', 'content-length': Buffer.byteLength(payload) })
    done(null, lingering(payload, request.raw, timeoutMs))
  })
}

function hasMuchLeft ({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > SMALL_BODY_BYTES
}

function lingering (payload: string | Buffer, request: IncomingMessage, timeoutMs: number): Readable {
  const answer = new PassThrough()
  const end = (): void => {
    clearTimeout(timer)
    answer.end()
  }
  const timer = setTimeout(end, timeoutMs)
  request.once('end', end).once('close', end)
  answer.write(payload)
  return answer
}

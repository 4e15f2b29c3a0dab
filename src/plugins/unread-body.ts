import type { IncomingMessage } from 'node:http'
import { constants, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { PassThrough, type Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply } from 'fastify'
import { streamOf } from './http2-stream.js'
import { STALLED_TIMEOUT_MS } from './node-answers.js'

/** How long a sender may go on after it has been answered. */
const DRAIN_TIMEOUT_MS = 20_000
/** This much is read after an answer without a word, and the connection kept. */
const SMALL_BODY_BYTES = 64 * 1024

/**
 * An answer that is given before the request's body was read has to reach a sender that is still sending. So it is written at
 * once, the rest of the body is drained, for a while, and only then does the answer end and the connection close: closing
 * at once would reset it (RFC 9112 section 9.6), and the sender would see that instead of the answer.
 */
export function drainUnreadBodies (app: FastifyInstance, timeoutMs = DRAIN_TIMEOUT_MS, stalledMs = STALLED_TIMEOUT_MS): void {
  const closing = new WeakSet<Socket>()
  // What was sent behind such a body must not be processed any more: its sender could not be told.
  app.addHook('onRequest', (request, reply, done) => {
    if (streamOf(request.raw) === undefined && closing.has(request.raw.socket)) reply.hijack()
    done()
  })
  app.addHook('onSend', (request, reply, payload, done) => {
    const stream = streamOf(request.raw)
    if (stream !== undefined) {
      endStream(stream, reply, timeoutMs, stalledMs)
      done(null, payload)
      return
    }
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

/**
 * Over HTTP/2 the answer ends at once, whatever its sender has still to send, and nobody else's stream is held up (RFC 9113 section 8.1). What
 * would close a connection of HTTP/1.1 closes the stream alone; and so is one closed on which an answer does not move on, whatever
 * else keeps its connection busy.
 */
function endStream (stream: ServerHttp2Stream, reply: FastifyReply, drainMs: number, stalledMs: number): void {
  const isCutOff = reply.hasHeader('connection')
  reply.removeHeader('connection')
  if (stream.destroyed) return
  const isUnread = !stream.endAfterHeaders && !stream.readableEnded
  if (isUnread) setImmediate(() => { stream.resume() })
  // Its last frame goes out first.
  if (isCutOff) stream.once('finish', () => { setImmediate(() => { stream.close() }) })
  const timer = setTimeout(() => {
    stream.close(stream.writableFinished ? constants.NGHTTP2_NO_ERROR : constants.NGHTTP2_CANCEL)
  }, isUnread ? drainMs : stalledMs)
  stream.on('drain', () => { timer.refresh() })
  stream.once('close', () => { clearTimeout(timer) })
}

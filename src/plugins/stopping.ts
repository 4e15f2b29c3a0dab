import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import { AppError } from '../errors.js'
import { TlsServer } from './tls-server.js'

export interface StoppingOptions {
  /** How long requests under way may take to finish. */
  timeoutMs: number
  /** Resolves when nothing that was begun is still being written. */
  settled: () => Promise<void>
}

/** What the first request of a connection may take to come when the end has begun: it was on its way, or it never comes. */
const FIRST_REQUEST_MS = 1000

/**
 * An orderly end: requests under way finish, and so do the first ones of connections that were there by then, for who was let in is not shown the door; those
 * that still come on other connections are 503, and after a while the rest is cut off. Node's own `close` would wait for ever for connections on
 * which no request comes (browsers and balancers open some in advance), and for those whose last request ended after it.
 */
export function stopInOrder (app: FastifyInstance, { timeoutMs, settled }: StoppingOptions): void {
  let isStopping = false
  let isTooLate = false
  let timers: NodeJS.Timeout[] = []
  const unused = new Set<Socket>()
  app.addHook('onRequest', ({ raw: { socket } }, reply, done) => {
    if (!isStopping) {
      done()
    } else if (unused.has(socket)) {
      reply.header('connection', 'close')
      done()
    } else {
      done(new AppError('shutting_down', 'This server is stopping.', { headers: { connection: 'close', 'retry-after': '5' } }))
    }
  })
  app.server.on(app.server instanceof TlsServer ? 'secureConnection' : 'connection', (socket: Socket) => {
    // HTTP/2 has a word for it, and closing the server says it.
    if (socket instanceof TLSSocket && socket.alpnProtocol === 'h2') return
    // Its handshake has taken that long.
    if (isTooLate) socket.destroy()
    unused.add(socket)
    socket.once('close', () => { unused.delete(socket) })
  })
  // Fastify, which listens first, has begun with the request.
  app.server.on('request', ({ socket }, response) => {
    unused.delete(socket)
    response.once('close', () => { if (isStopping) setImmediate(() => { app.server.closeIdleConnections() }) })
  })
  app.addHook('preClose', async () => {
    isStopping = true
    timers = [
      setTimeout(() => { app.server.closeAllConnections() }, timeoutMs),
      setTimeout(() => {
        isTooLate = true
        for (const socket of unused) socket.destroy()
      }, Math.min(FIRST_REQUEST_MS, timeoutMs))
    ]
  })
  // By now the server is closed, if it ever listened.
  app.addHook('onClose', async () => {
    for (const timer of timers) clearTimeout(timer)
    await settled()
  })
}

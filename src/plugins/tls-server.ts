import { createServer, type ServerHttp2Session } from 'node:http2'
import { Server } from 'node:https'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { Certificate } from '../certificate.js'
import { KEEP_ALIVE_TIMEOUT_MS } from './node-answers.js'

/** Who has not said hello by then is not going to. */
const HANDSHAKE_TIMEOUT_MS = 10_000
/** How long the other side may take to close a connection that was ended in good order. */
const LINGER_MS = 5000
/** Of all streams of a connection together: what a recorder 100 ms away may have under way is 10 MB a second. */
const CONNECTION_WINDOW_BYTES = 1024 * 1024

/** What one connection of HTTP/2 may ask for. */
const HTTP2_LIMITS = {
  settings: {
    // A thousand calls that end together wait for their turn in the recorder.
    maxConcurrentStreams: 128,
    // Of one stream, and so what is kept of an upload while the disk is busy: with all streams 32 MiB a connection.
    initialWindowSize: 256 * 1024,
    // As over HTTP/1.1. A stream with more is reset.
    maxHeaderListSize: 16 * 1024
  },
  maxHeaderListPairs: 128,
  // In megabytes: all streams with an answer of 256 KiB each that nobody reads, and some. Beyond it new streams are refused.
  maxSessionMemory: 64,
  // Frames that no client sends by mistake so often (the empty ones that end nothing are counted too).
  maxSessionInvalidFrames: 100,
  // A recorder that has not heard of maxConcurrentStreams yet may have this many too many, and is told to try again.
  maxSessionRejectedStreams: 1000,
  // This side sends no pings, and settings once.
  maxOutstandingPings: 2,
  maxOutstandingSettings: 2,
  // Entries of one SETTINGS frame; there are seven kinds.
  maxSettings: 32,
  // A player that seeks takes requests back, 33 a second and 200 at once; beyond it the connection ends (CVE-2023-44487). Node 20 has
  // nghttp2's own limit, which is 1,000 at once.
  streamResetBurst: 200,
  streamResetRate: 33
}

/**
 * Speaks HTTPS: HTTP/2 where the client asks for it (ALPN), else HTTP/1.1; TLS 1.2 and up. It is Node's server for HTTP/1.1, with all that
 * this can be told, and its requests of HTTP/2 come the same way. Closing it ends both, in good order, and so does cutting both off.
 */
export class TlsServer extends Server {
  readonly #sessions = new Set<ServerHttp2Session>()
  /** Underneath TLS, whatever is spoken there, or not yet. */
  readonly #connections = new Set<Socket>()
  #isClosing = false

  constructor (certificate: Certificate, { keepAliveMs = KEEP_ALIVE_TIMEOUT_MS, handshakeTimeoutMs = HANDSHAKE_TIMEOUT_MS } = {}) {
    super({ ...certificate, minVersion: 'TLSv1.2', ALPNProtocols: ['h2', 'http/1.1'], handshakeTimeout: handshakeTimeoutMs })
    const http2 = createServer(HTTP2_LIMITS, (request, response) => { this.emit('request', request, response) })
    // Node's own listener, which takes whatever comes for HTTP/1.1.
    const speakHttp1 = this.listeners('secureConnection')
    this.removeAllListeners('secureConnection')
    this.on('secureConnection', (socket: TLSSocket) => {
      if (socket.alpnProtocol !== 'h2') {
        for (const listener of speakHttp1) Reflect.apply(listener, this, [socket])
        return
      }
      // A session that has ended waits for its client to close the connection, as long as that takes.
      socket.once('finish', () => {
        const timer = setTimeout(() => { socket.destroy() }, LINGER_MS).unref()
        socket.once('close', () => { clearTimeout(timer) })
      })
      http2.emit('connection', socket)
    })
    http2.on('session', session => { this.#watch(session, keepAliveMs) })
    this.on('connection', (socket: Socket) => {
      this.#connections.add(socket)
      socket.once('close', () => { this.#connections.delete(socket) })
    })
  }

  /** For handshakes from now on; connections that are open stay as they are. */
  renew (certificate: Certificate): void {
    this.setSecureContext({ ...certificate, minVersion: 'TLSv1.2' })
  }

  override close (done?: (error?: Error) => void): this {
    this.#isClosing = true
    for (const session of this.#sessions) session.close()
    return super.close(done)
  }

  override closeAllConnections (): void {
    for (const socket of this.#connections) socket.destroy()
  }

  #watch (session: ServerHttp2Session, keepAliveMs: number): void {
    let openStreams = 0
    this.#sessions.add(session)
    session.once('close', () => { this.#sessions.delete(session) })
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES)
    session.setTimeout(keepAliveMs)
    session.on('timeout', () => { session.close() })
    session.on('stream', stream => {
      // What is under way has limits of its own.
      if (openStreams++ === 0) session.setTimeout(0)
      stream.once('close', () => {
        if (--openStreams === 0 && !session.destroyed) session.setTimeout(keepAliveMs)
      })
    })
    // Its handshake was under way.
    if (this.#isClosing) session.close()
  }
}

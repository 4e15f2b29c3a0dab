import { createServer, type ServerHttp2Session } from 'node:http2'
import { Server } from 'node:https'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { Certificate } from '../certificate.js'
import { KEEP_ALIVE_TIMEOUT_MS, STALLED_TIMEOUT_MS } from './node-answers.js'

/** Who has not said hello by then is not going to. */
const HANDSHAKE_TIMEOUT_MS = 10_000
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
  // A recorder that has not heard of maxConcurrentStreams yet may have this many too many, and is told to try again; those are
  // invalid frames too, and so are empty ones that end nothing.
  maxSessionRejectedStreams: 1000,
  maxSessionInvalidFrames: 1000,
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

/** Times of a server, in milliseconds. */
export interface TlsTimes {
  handshakeMs: number
  /** How long a connection of HTTP/2 may be without a request. */
  keepAliveMs: number
  /** How long nothing may move on one that has requests: its client reads nothing any more, or has gone without a word. */
  stalledMs: number
  /** How long its client may take to close one that was ended in good order. */
  lingerMs: number
}

export const TIMES: TlsTimes = { handshakeMs: HANDSHAKE_TIMEOUT_MS, keepAliveMs: KEEP_ALIVE_TIMEOUT_MS, stalledMs: STALLED_TIMEOUT_MS, lingerMs: LINGER_MS }

/**
 * Speaks HTTPS: HTTP/2 where the client asks for it (ALPN), else HTTP/1.1; TLS 1.2 and up. It is Node's server for HTTP/1.1, with all that
 * this can be told, and its requests of HTTP/2 come the same way. Closing it ends both, in good order, and so does cutting both off.
 */
export class TlsServer extends Server {
  readonly #times: TlsTimes
  readonly #sessions = new Set<ServerHttp2Session>()
  /** Underneath TLS, whatever is spoken there, or not yet. */
  readonly #connections = new Set<Socket>()
  #isClosing = false

  constructor (certificate: Certificate, times = TIMES) {
    super({ ...certificate, minVersion: 'TLSv1.2', ALPNProtocols: ['h2', 'http/1.1'], handshakeTimeout: times.handshakeMs })
    this.#times = times
    const http2 = createServer(HTTP2_LIMITS, (request, response) => { this.emit('request', request, response) })
    // Node's own listener, which takes whatever comes for HTTP/1.1.
    const speakHttp1 = this.listeners('secureConnection')
    this.removeAllListeners('secureConnection')
    this.on('secureConnection', (socket: TLSSocket) => {
      if (socket.alpnProtocol === 'h2') {
        http2.once('session', session => { this.#watch(session, socket) })
        http2.emit('connection', socket)
      } else for (const listener of speakHttp1) Reflect.apply(listener, this, [socket])
    })
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

  #watch (session: ServerHttp2Session, socket: TLSSocket): void {
    const { keepAliveMs, stalledMs, lingerMs } = this.#times
    let openStreams = 0
    this.#sessions.add(session)
    session.once('close', () => { this.#sessions.delete(session) })
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES)
    session.setTimeout(keepAliveMs)
    session.on('stream', stream => {
      if (openStreams++ === 0) session.setTimeout(stalledMs)
      stream.once('close', () => {
        if (--openStreams === 0 && !session.destroyed) session.setTimeout(keepAliveMs)
      })
    })
    session.on('timeout', () => {
      // What waits to be written to it would keep a word of farewell waiting too.
      if (openStreams > 0) socket.destroy()
      else {
        session.close()
        linger(socket, lingerMs)
      }
    })
    // A session that has ended waits for its client to close the connection, as long as that takes.
    socket.once('finish', () => { linger(socket, lingerMs) })
    // Its handshake was under way.
    if (this.#isClosing) session.close()
  }
}

function linger (socket: TLSSocket, ms: number): void {
  const timer = setTimeout(() => { socket.destroy() }, ms).unref()
  socket.once('close', () => { clearTimeout(timer) })
}

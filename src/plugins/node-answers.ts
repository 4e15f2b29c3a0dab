import { METHODS, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { AppError } from '../errors.js'
import { streamOf } from './http2-stream.js'
import { problemOf } from './problems.js'

/** What a recorder's connection may idle (60 s, measured), and a little more. */
export const KEEP_ALIVE_TIMEOUT_MS = 75_000
const HEADERS_TIMEOUT_MS = 30_000
/** On which nothing moves, in either direction: a download that nobody reads any more. A player that goes on asks for the rest. */
export const STALLED_TIMEOUT_MS = 300_000

/** How long nothing may move on a connection: longer than a sender may be silent, who is told so. */
export function connectionTimeoutMs ({ idleTimeoutMs }: { idleTimeoutMs: number }): number {
  return Math.max(STALLED_TIMEOUT_MS, 2 * idleTimeoutMs)
}

/** Limits of Node's server. The bodies of uploads take the time they need; who falls silent is cut off elsewhere. */
export function limitServer (server: Server, pace: { idleTimeoutMs: number }): void {
  server.keepAliveTimeout = KEEP_ALIVE_TIMEOUT_MS
  server.headersTimeout = HEADERS_TIMEOUT_MS
  server.requestTimeout = 0
  server.timeout = connectionTimeoutMs(pace)
  server.maxHeadersCount = 100
}

/** Answers outside of any route, straight to a socket. */
export interface SocketAnswers {
  /** Answers what Node cannot parse, with a problem as everywhere else. */
  answerUnparsable: (error: Error & { code?: string }, socket: Socket) => void
  /** To be told of the requests of a server, so that no such answer gets into the middle of another. */
  watch: (server: Server) => void
}

export function createSocketAnswers (): SocketAnswers {
  const underWay = new WeakMap<Socket, Set<ServerResponse>>()

  return {
    watch: server => {
      server.on('request', (request, response: ServerResponse) => {
        // Nothing is ever said past the streams.
        if (streamOf(request) !== undefined) return
        const { socket } = request
        const answers = underWay.get(socket) ?? new Set()
        underWay.set(socket, answers.add(response))
        response.once('close', () => { answers.delete(response) })
      })
    },
    answerUnparsable: (error, socket) => {
      const hasBegun = [...underWay.get(socket) ?? []].some(({ headersSent }) => headersSent)
      // An error of another kind is one of the connection: a handshake that failed, a client that is gone.
      const isUnparsable = /^(HPE|ERR_HTTP)_/.test(error.code ?? '')
      if (hasBegun || !isUnparsable || socket.destroyed || !socket.writable) {
        socket.destroy()
        return
      }
      const { status, headers, problem } = problemOf(unparsable(error.code), '')
      const body = JSON.stringify({ ...problem, request_id: undefined })
      const lines = Object.entries({ ...headers, 'content-length': Buffer.byteLength(body), connection: 'close' }).map(([name, value]) => `${name}: ${value}`)
      socket.end(`HTTP/1.1 ${status} ${String(problem['title'])}\r\n${lines.join('\r\n')}\r\n\r\n${body}`)
    }
  }
}

function unparsable (code: string | undefined): AppError {
  if (code === 'HPE_HEADER_OVERFLOW') return new AppError('headers_too_large', 'The headers are too large.')
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return new AppError('sender_too_slow', 'The request did not come in time.')
  if (code === 'HPE_INVALID_EOF_STATE') return new AppError('body_incomplete', 'The request ended before its end.')
  return new AppError('malformed_request', 'This is no HTTP request.')
}

/** After all routes: a method that a path does not have is 405 with `Allow` (RFC 9110 section 15.5.6). */
export function collectMethods (app: FastifyInstance): () => void {
  // Fastify knows but the common ones, and has no path at all for the others.
  for (const method of METHODS) if (!app.supportedMethods.includes(method)) app.addHttpMethod(method, { hasBody: true })
  const urls = new Set<string>()
  app.addHook('onRoute', ({ url }) => { urls.add(url) })
  return () => {
    for (const url of [...urls]) {
      // The router knows them all: the hook is not told of a method that came with a trailing slash.
      const methods = METHODS.filter(method => app.hasRoute({ url, method }))
      const allow = methods.join(', ')
      const others = METHODS.filter(method => !methods.includes(method))
      app.route({
        method: others,
        url,
        schema: { hide: true },
        // Before the body is parsed: whatever it is, it would not be taken.
        onRequest: ({ method: found }: FastifyRequest) => {
          throw new AppError('method_not_allowed', 'This path does not have this method.', { expected: allow, found, headers: { allow } })
        },
        handler: () => {}
      })
    }
  }
}

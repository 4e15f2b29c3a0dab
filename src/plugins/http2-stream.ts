import type { IncomingMessage } from 'node:http'
import { Http2ServerRequest, type ServerHttp2Stream } from 'node:http2'

/**
 * The stream that carries a request of HTTP/2; undefined for one of HTTP/1.1, which has its connection to itself. Node's request
 * of HTTP/2 looks like that of HTTP/1.1, but calls itself complete when it was broken off, and never destroyed.
 */
export function streamOf (request: IncomingMessage): ServerHttp2Stream | undefined {
  return request instanceof Http2ServerRequest ? request.stream : undefined
}

import { once } from 'node:events'
import { connect, type ClientHttp2Session, type ClientHttp2Stream, type ClientSessionOptions, type OutgoingHttpHeaders, type SecureClientSessionOptions } from 'node:http2'
import type { Json, TlsService } from '../helper.js'

/** An answer of HTTP/2. */
export interface Http2Answer { status: number, headers: Record<string, string | string[] | undefined>, bytes: Buffer, text: string, json: Json }

/** Connects with HTTP/2; the session ends with the test at the latest. */
export async function openSession (
  t: { teardown: (run: () => unknown) => void }, { url, ca }: Pick<TlsService, 'url' | 'ca'>, options: ClientSessionOptions & SecureClientSessionOptions = {}
): Promise<ClientHttp2Session> {
  // Node's client takes no answers while it has more than that to send.
  const session = connect(url, { ca, maxSessionMemory: 100, ...options })
  session.on('error', () => {})
  session.setMaxListeners(0)
  t.teardown(() => { session.destroy() })
  await once(session, 'connect')
  return session
}

/** Begins a request; whoever has a body for it sends that. */
export function begin (session: ClientHttp2Session, method: string, path: string, headers: OutgoingHttpHeaders = {}, endStream = false): ClientHttp2Stream {
  const stream = session.request({ ':method': method, ':path': path, ...headers }, { endStream })
  stream.on('error', () => {})
  return stream
}

/** What comes back on a stream. Rejects where it ends without an answer. */
export async function answerOf (stream: ClientHttp2Stream): Promise<Http2Answer> {
  return await new Promise((resolve, reject) => {
    let status = 0
    let headers: Http2Answer['headers'] = {}
    const pieces: Buffer[] = []
    stream.on('response', received => {
      headers = received
      status = received[':status'] ?? 0
    })
    stream.on('data', (piece: Buffer) => { pieces.push(piece) })
    stream.on('end', () => {
      const bytes = Buffer.concat(pieces)
      const text = bytes.toString()
      if (status === 0) reject(new Error(`The stream ended without an answer (${stream.rstCode}).`))
      else resolve({ status, headers, bytes, text, json: /json/.test(String(headers['content-type'])) && text !== '' ? JSON.parse(text) : undefined })
    })
    stream.on('close', () => { reject(new Error(`The stream was closed (${stream.rstCode}).`)) })
  })
}

/** A whole request, and its answer. */
export async function send (session: ClientHttp2Session, method: string, path: string, headers: OutgoingHttpHeaders = {}, body?: Uint8Array): Promise<Http2Answer> {
  const stream = begin(session, method, path, headers, body === undefined)
  const answer = answerOf(stream)
  if (body !== undefined) stream.end(body)
  return await answer
}

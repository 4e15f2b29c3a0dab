import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { streamOf } from './http2-stream.js'

/** One line a request, when its answer is known and over, whether it reached anybody or not: `onResponse` runs for those only that did. */
export function logRequests (app: FastifyInstance): void {
  const addresses = new WeakMap<FastifyRequest, string>()
  const answered = new WeakSet<FastifyRequest>()
  // A closed connection has no address any more.
  app.addHook('onRequest', (request, _reply, done) => {
    addresses.set(request, request.ip)
    done()
  })
  app.addHook('onSend', (request, reply, payload, done) => {
    if (!answered.has(request)) {
      answered.add(request)
      const log = (): void => { logRequest(request, reply, addresses.get(request)) }
      if (streamOf(request.raw)?.destroyed ?? reply.raw.closed) log()
      else reply.raw.once('close', log)
    }
    done(null, payload)
  })
}

/**
 * Has the route in place of the path: a path can hold a signed URL, which is a secret. What was asked for is told by the ids in it, and
 * only by what is one: a signed URL that lost its way, or a key, can stand in any place.
 */
export function logRequest (request: FastifyRequest, reply: FastifyReply, address = request.ip): void {
  const { id, uuid, token } = { id: '', uuid: '', token: '', ...request.params as object } satisfies Record<string, unknown>
  request.log.info({
    method: request.method,
    route: request.routeOptions.url,
    account: /^(me|[0-9]{1,15})$/.exec(String(id))?.[0],
    voicemail: /^[0-9a-f-]{36}$/i.exec(String(uuid))?.[0] ?? /^[0-9a-f-]{36}(?=;)/.exec(String(token))?.[0],
    status: reply.statusCode,
    outcome: request.outcome,
    duration_ms: Math.round(reply.elapsedTime * 1000) / 1000,
    address
  }, 'request')
}

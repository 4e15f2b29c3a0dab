import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'

/** One line a request. */
export function logRequests (app: FastifyInstance): void {
  app.addHook('onResponse', async (request, reply) => { logRequest(request, reply) })
}

/**
 * Has the route in place of the path: a path can hold a signed URL, which is a secret. What was asked for is told by the ids in it, and
 * only by what is one: a signed URL that lost its way, or a key, can stand in any place.
 */
export function logRequest (request: FastifyRequest, reply: FastifyReply): void {
  const { id, uuid, token } = { id: '', uuid: '', token: '', ...request.params as object } satisfies Record<string, unknown>
  request.log.info({
    method: request.method,
    route: request.routeOptions.url,
    account: /^(me|[0-9]{1,15})$/.exec(String(id))?.[0],
    voicemail: /^[0-9a-f-]{36}$/i.exec(String(uuid))?.[0] ?? /^[0-9a-f-]{36}(?=;)/.exec(String(token))?.[0],
    status: reply.statusCode,
    outcome: request.outcome,
    duration_ms: Math.round(reply.elapsedTime * 1000) / 1000,
    address: request.ip
  }, 'request')
}

import type { FastifyInstance } from 'fastify'

/**
 * One line a request, with the route in place of the path: a path can hold a signed URL, which is a secret. What was asked for is
 * told by the ids in it.
 */
export function logRequests (app: FastifyInstance): void {
  app.addHook('onResponse', async (request, reply) => {
    const { id: account, uuid, token } = { id: undefined, uuid: undefined, token: undefined, ...request.params as object } satisfies Record<string, unknown>
    request.log.info({
      method: request.method,
      route: request.routeOptions.url,
      account,
      voicemail: uuid ?? tokenSubject(token),
      status: reply.statusCode,
      outcome: request.outcome,
      duration_ms: Math.round(reply.elapsedTime * 1000) / 1000,
      address: request.ip
    }, 'request')
  })
}

/** The voicemail that a signed URL is for, which is no secret. */
function tokenSubject (token: unknown): string | undefined {
  return typeof token === 'string' ? /^[0-9a-f-]{36}(?=;)/.exec(token)?.[0] : undefined
}

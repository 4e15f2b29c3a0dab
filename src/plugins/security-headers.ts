import type { FastifyInstance } from 'fastify'

/** Nothing here is a page, but for /docs, which has a policy of its own; and what has keys and signed URLs in it is not for caches. */
export const SECURITY_HEADERS = {
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store'
}

/** Security headers on every answer; a route that needs others sets its own. */
export function addSecurityHeaders (app: FastifyInstance): void {
  app.addHook('onRequest', (_request, reply, done) => {
    reply.headers(SECURITY_HEADERS)
    done()
  })
}

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { AppError } from '../errors.js'
import type { Metrics } from '../plugins/metrics.js'

export interface HealthDependencies {
  metrics: Metrics
  /** Throws what keeps this service from taking a voicemail. */
  ready: () => Promise<void>
}

/** For whoever watches over the service. */
export function healthRoutes ({ metrics, ready }: HealthDependencies): FastifyPluginAsyncTypebox {
  return async app => {
    app.get('/ping', { schema: { tags: ['operations'], summary: 'Answers pong', response: { 200: Type.String() } } }, async (_request, reply) =>
      await reply.type('text/plain; charset=utf-8').send('pong'))

    const health = { tags: ['operations'], response: { 200: Type.Object({ status: Type.Literal('ok') }) } }
    app.get('/health/live', { schema: { ...health, summary: 'Whether the process answers' } }, () => ({ status: 'ok' as const }))

    app.get('/health/ready', { schema: { ...health, summary: 'Whether a voicemail could be taken now' } }, async () => {
      try {
        await ready()
      } catch (error) {
        const reason = error instanceof AppError ? error.message : 'The database or the data folder cannot be written.'
        throw new AppError('unavailable', reason, { cause: error })
      }
      return { status: 'ok' as const }
    })

    app.get('/metrics', { schema: { tags: ['operations'], summary: "Metrics in Prometheus's format", response: { 200: Type.String() } } }, async (_request, reply) => {
      const { contentType, text } = await metrics.read()
      return await reply.type(contentType).send(text)
    })
  }
}

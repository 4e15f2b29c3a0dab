import swagger from '@fastify/swagger'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { AppError } from '../errors.js'
import { docsPage } from '../installation.js'
import { Problem } from '../schemas/common.js'

/** What is asked without a key or a token. */
const OPEN_TAGS = ['operations', 'audio']

/** `/openapi.json`, made from the schemas that validate, and `/docs` to read it. */
export async function describeApi (app: FastifyInstance, version: string): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'voicemaild', version, description: 'A voicemail store for SIP. Every path is served below /api too.' },
      security: [{ apiKey: [] }, { jwt: [] }],
      components: {
        securitySchemes: {
          apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key' },
          jwt: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' }
        }
      }
    },
    transformObject: document => {
      if (!('openapiObject' in document)) return document.swaggerObject
      const { openapiObject } = document
      const problem = { description: 'A problem (RFC 9457)', content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } } }
      openapiObject.components = { ...openapiObject.components, schemas: { ...openapiObject.components?.schemas, Problem: JSON.parse(JSON.stringify(Problem)) } }
      for (const path of Object.values(openapiObject.paths ?? {})) {
        for (const operation of Object.values(path ?? {})) {
          if (typeof operation !== 'object' || !('responses' in operation)) continue
          operation.responses = { ...operation.responses, default: problem }
          if (operation.tags?.some(tag => OPEN_TAGS.includes(tag))) operation.security = []
        }
      }
      return openapiObject
    }
  })
  app.get('/openapi.json', { schema: { hide: true } }, () => app.swagger())

  let page: Promise<FastifyInstance> | undefined
  const readPage = async ({ url, headers: asked }: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    page ??= buildPage(app)
    const { statusCode, headers, rawPayload } = await (await page).inject({ url, headers: asked })
    if (statusCode >= 400 && statusCode < 500) throw new AppError('not_found', 'There is nothing here.')
    // The connection is this server's own matter.
    const { connection, 'transfer-encoding': _, ...about } = headers
    return await reply.code(statusCode).headers(about).send(rawPayload)
  }
  for (const path of ['/docs', '/docs/*']) app.get(path, { schema: { hide: true } }, readPage)
}

/** The page is a service inside this one that is loaded when somebody reads it: most installations never do, and their start and their memory are spared. */
async function buildPage (app: FastifyInstance): Promise<FastifyInstance> {
  const { default: swaggerUi } = await import('@fastify/swagger-ui')
  const page = fastify()
  await page.register(swagger, { openapi: {}, transformObject: () => app.swagger() })
  await page.register(swaggerUi, { ...docsPage(), routePrefix: '/docs', staticCSP: true, transformStaticCSP: policy => policy.replace(/ (upgrade-insecure-requests;|validator\.swagger\.io)/g, '') })
  return page
}

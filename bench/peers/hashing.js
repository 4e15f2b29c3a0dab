import { createHash } from 'node:crypto'
import fastify from 'fastify'
import { isSigned } from './signature.js'

/** What an upload costs before anything is stored: Fastify takes the body as it comes, hashes it, checks the HMAC in its URL, and answers. */
const { PORT: port, SIGNING_KEY: key } = process.env
const app = fastify()
app.removeAllContentTypeParsers()
app.addContentTypeParser('*', (_request, _payload, done) => { done(null) })
app.put('/files/:name', async (request, reply) => {
  const { name } = request.params
  const { expires, signature } = request.query
  if (!isSigned(key, 'PUT', name, expires, signature)) return await reply.code(403).send()
  const hash = createHash('sha256')
  for await (const chunk of request.raw) hash.update(chunk)
  return await reply.code(201).send({ name, sha256: hash.digest('hex') })
})
await app.listen({ port: Number(port), host: '127.0.0.1' })

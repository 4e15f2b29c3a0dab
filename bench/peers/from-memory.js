import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fastify from 'fastify'

/** Answers, with Fastify, what another server answered: `answers.json` in its folder is a list of `{ path, headers, body }`. */
const { DATA_DIR: data, PORT: port } = process.env
const app = fastify()
for (const { path, headers, body } of JSON.parse(readFileSync(join(data, 'answers.json'), 'utf8'))) {
  const bytes = Buffer.from(body)
  app.get(path, async (_request, reply) => await reply.headers(headers).send(bytes))
}
await app.listen({ port: Number(port), host: '127.0.0.1' })

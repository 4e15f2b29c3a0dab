import { createHash, timingSafeEqual } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import fastify from 'fastify'

/**
 * Answers, with Fastify, what another server answered: `answers.json` in its folder is a list of `{ method, path, status, headers, body | bodyFile }`.
 * With DATABASE it does what cannot be left out where answers are for the holder of a key: the key is hashed and compared, and the row of the account read.
 */
const { DATA_DIR: data, PORT: port, DATABASE: database, ADMIN_API_KEY: apiKey, ACCOUNT: account } = process.env
const app = fastify()
if (database !== undefined) {
  const digest = text => createHash('sha256').update(text).digest()
  const rightKey = digest(apiKey)
  const row = new Sqlite(database).prepare('SELECT * FROM accounts WHERE id = ?').raw()
  app.addHook('onRequest', async (request, reply) => {
    if (!timingSafeEqual(digest(request.headers['x-api-key'] ?? ''), rightKey) || row.get(Number(account)) === undefined) return await reply.code(401).send()
  })
}
for (const { method = 'GET', path, status = 200, headers, body, bodyFile } of JSON.parse(readFileSync(join(data, 'answers.json'), 'utf8'))) {
  const bytes = bodyFile === undefined ? Buffer.from(body) : readFileSync(bodyFile)
  app.route({ method, url: path, handler: async (_request, reply) => await reply.code(status).headers(headers).send(bytes) })
}
await app.listen({ port: Number(port), host: '127.0.0.1' })

import { createHash, createHmac, randomUUID, timingSafeEqual } from 'node:crypto'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import fastify from 'fastify'

/** The slot alone, as one would write it: JSON validated by a schema, one durable INSERT in a transaction of its own, a signed URL. */
const { DATA_DIR: data, PORT: port, SIGNING_KEY: signingKey, ADMIN_API_KEY: apiKey, SYNCHRONOUS = 'FULL' } = process.env
const SLOT_SECONDS = 3600

const database = new Sqlite(join(data, 'rows.sqlite'))
database.pragma('journal_mode = WAL')
database.pragma(`synchronous = ${SYNCHRONOUS}`)
database.exec('CREATE TABLE IF NOT EXISTS slots (id TEXT PRIMARY KEY, account_id INTEGER, sip_from TEXT, content_type TEXT, created_at_ms INTEGER, expires_at_ms INTEGER)')
const insert = database.prepare('INSERT INTO slots VALUES (?, ?, ?, ?, ?, ?)')

const digest = text => createHash('sha256').update(text).digest()
const rightKey = digest(apiKey)
const app = fastify()
app.addHook('onRequest', async (request, reply) => {
  if (!timingSafeEqual(digest(request.headers['x-api-key'] ?? ''), rightKey)) return await reply.code(401).send({ code: 'unauthorized' })
})

const text = { type: 'string' }
const body = {
  type: 'object',
  required: ['sip_from', 'content_type'],
  properties: { sip_from: { type: 'string', pattern: '^sips?:([^@\\s]+@)?[^@\\s]+$' }, content_type: { enum: ['audio/opus', 'audio/wav'] } }
}
const slot = {
  type: 'object',
  properties: {
    id: text,
    sip_from: text,
    upload_url: text,
    download_url: { type: 'null' },
    max_upload_size: { type: 'integer' },
    content_type: text,
    created_at: text,
    uploaded_at: { type: 'null' },
    status: text,
    expires_at: text
  }
}
app.post('/accounts/:id/voicemails', { schema: { body, response: { 201: slot } } }, async (request, reply) => {
  const { sip_from: sipFrom, content_type: contentType } = request.body
  const id = randomUUID()
  const nowMs = Date.now()
  const expires = Math.floor(nowMs / 1000) + SLOT_SECONDS
  insert.run(id, Number(request.params.id), sipFrom, contentType, nowMs, expires * 1000)
  const signature = createHmac('sha256', signingKey).update(`upload\n${id}\n${expires}`).digest('base64url')
  return await reply.code(201).header('location', `/accounts/${request.params.id}/voicemails/${id}`).send({
    id,
    sip_from: sipFrom,
    upload_url: `http://127.0.0.1:${port}/uploads/${id};expires=${expires};signature=${signature}`,
    download_url: null,
    max_upload_size: 15_000_000,
    content_type: contentType,
    created_at: new Date(nowMs).toISOString(),
    uploaded_at: null,
    status: 'pending',
    expires_at: new Date(expires * 1000).toISOString()
  })
})

await app.listen({ port: Number(port), host: '127.0.0.1' })

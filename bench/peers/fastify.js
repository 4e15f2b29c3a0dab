import { randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import multipart from '@fastify/multipart'
import serveStatic from '@fastify/static'
import Sqlite from 'better-sqlite3'
import fastify from 'fastify'

/** The usual recipe: the part of a form is piped to a file, one row is inserted, nothing is synced; files come back by @fastify/static. */
const { DATA_DIR: data, PORT: port } = process.env
const files = join(data, 'files')
await mkdir(files, { recursive: true })

const database = new Sqlite(join(data, 'rows.sqlite'))
database.pragma('journal_mode = WAL')
database.pragma('synchronous = NORMAL')
database.exec('CREATE TABLE IF NOT EXISTS voicemails (id TEXT PRIMARY KEY, sip_from TEXT, name TEXT, type TEXT, bytes INTEGER, created_at_ms INTEGER)')
const insert = database.prepare('INSERT INTO voicemails VALUES (?, ?, ?, ?, ?, ?)')

const app = fastify()
await app.register(multipart, { limits: { fileSize: 15_000_000 } })
await app.register(serveStatic, { root: files, prefix: '/files/' })

app.post('/voicemails', async (request, reply) => {
  const part = await request.file()
  const id = randomUUID()
  await pipeline(part.file, createWriteStream(join(files, `${id}.wav`)))
  if (part.file.truncated) return await reply.code(413).send()
  insert.run(id, part.fields.sip_from?.value, part.filename, part.mimetype, part.file.bytesRead, Date.now())
  return await reply.code(201).send({ id, url: `/files/${id}.wav` })
})

await app.listen({ port: Number(port), host: '127.0.0.1' })

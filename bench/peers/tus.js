import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { FileStore } from '@tus/file-store'
import { Server } from '@tus/server'

/** The resumable uploads of tus, with its file store and its defaults; the client sends the whole file with the creation. */
const { DATA_DIR: data, PORT: port } = process.env
const files = join(data, 'files')
await mkdir(files, { recursive: true })
new Server({ path: '/files', datastore: new FileStore({ directory: files }) }).listen({ host: '127.0.0.1', port: Number(port) })

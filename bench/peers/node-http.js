import { randomUUID } from 'node:crypto'
import { close, createReadStream, createWriteStream, fdatasync, fsync, open } from 'node:fs'
import { mkdir, rename, rm, stat } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import { isSigned } from './signature.js'

/**
 * Plain node:http: the body goes through a pipeline into a file of a temporary name, which is then renamed; files are streamed back with the
 * defaults of createReadStream. Every URL carries an HMAC. With SYNCED=1 the file and its folder are on the disk before the answer.
 */
const { DATA_DIR: data, PORT: port, SIGNING_KEY: key } = process.env
const isSynced = process.env.SYNCED === '1'
const [incoming, files] = [join(data, 'incoming'), join(data, 'files')]
const [openFd, closeFd, syncData, sync] = [open, close, fdatasync, fsync].map(call => promisify(call))
const PATH = /^\/files\/([\w.-]+)\?expires=(\d+)&signature=([\w-]+)$/

async function put (request, response, name) {
  const draft = join(incoming, randomUUID())
  try {
    const fd = await openFd(draft, 'wx')
    try {
      await pipeline(request, createWriteStream(draft, { fd, autoClose: false }))
      if (isSynced) await syncData(fd)
    } finally {
      await closeFd(fd)
    }
    await rename(draft, join(files, name))
    if (isSynced) await syncFolder(files)
  } catch (error) {
    await rm(draft, { force: true })
    throw error
  }
  response.writeHead(201, { 'content-type': 'application/json' }).end(JSON.stringify({ name }))
}

async function syncFolder (path) {
  const fd = await openFd(path, 'r')
  try {
    await sync(fd)
  } finally {
    await closeFd(fd)
  }
}

async function get (request, response, name) {
  const path = join(files, name)
  const { size } = await stat(path)
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? []
  const start = Number(from ?? 0)
  const end = Math.min(to ? Number(to) : size - 1, size - 1)
  const headers = { 'content-type': 'audio/wav', 'accept-ranges': 'bytes', 'content-length': end - start + 1 }
  if (from === undefined) response.writeHead(200, headers)
  else response.writeHead(206, { ...headers, 'content-range': `bytes ${start}-${end}/${size}` })
  await pipeline(createReadStream(path, { start, end }), response)
}

await mkdir(incoming, { recursive: true })
await mkdir(files, { recursive: true })
createServer(async (request, response) => {
  try {
    const [, name, expires, signature] = PATH.exec(request.url) ?? []
    if (name === undefined || !isSigned(key, request.method, name, expires, signature)) response.writeHead(403).end()
    else if (request.method === 'PUT') await put(request, response, name)
    else await get(request, response, name)
  } catch (error) {
    console.error(error)
    if (!response.headersSent) response.writeHead(error.code === 'ENOENT' ? 404 : 500).end()
  }
}).listen(Number(port), '127.0.0.1')

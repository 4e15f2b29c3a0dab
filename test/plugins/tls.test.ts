import { once } from 'node:events'
import { copyFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { connect as connectHttp2 } from 'node:http2'
import { connect as connectTcp, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { connect } from 'node:tls'
import fastify from 'fastify'
import t, { type Test } from 'tap'
import { readCertificate } from '../../src/certificate.js'
import { createTls, watchCertificate } from '../../src/plugins/tls.js'
import { TlsServer, type TlsTimes } from '../../src/plugins/tls-server.js'
import { makeCertificate } from '../certificates.js'
import { until } from '../wire/connection.js'
import { frame, HEADERS, END_HEADERS, END_STREAM, GOAWAY, openFrames, PING, requestFields, setting, SETTINGS } from '../wire/http2-frames.js'

/** The name in the certificate that a new connection is shown. */
async function shownBy (t: Test, port: number): Promise<unknown> {
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false })
  t.teardown(() => { socket.destroy() })
  await once(socket, 'secureConnect')
  const { subject } = socket.getPeerCertificate()
  socket.destroy()
  return subject.CN
}

/** Two certificates in folders of their own, and links to the first, as certbot has them. */
async function makeLinks (t: Test) {
  const folder = t.testdir({ live: {} })
  const [old, renewed] = [await makeCertificate(folder, 'old'), await makeCertificate(folder, 'new')]
  const files = { certFile: join(folder, 'live', 'fullchain.pem'), keyFile: join(folder, 'live', 'privkey.pem') }
  const point = async (link: string, target: string): Promise<void> => {
    await symlink(target, `${link}.next`)
    await rename(`${link}.next`, link)
  }
  await point(files.certFile, old.certFile)
  await point(files.keyFile, old.keyFile)
  return { folder, old, renewed, files, point }
}

t.test('a renewed certificate is shown to new connections, and those that are open go on', async t => {
  const { renewed, files, point } = await makeLinks(t)
  const tls = createTls({ ...files, certificate: readCertificate(files) }, { idleTimeoutMs: 30_000 })
  const lines: string[] = []
  const listeners = process.listenerCount('SIGHUP')
  const app = fastify({ logger: { stream: { write: line => { lines.push(line) } } }, serverFactory: tls.serverFactory })
  app.get('/', () => 'pong')
  tls.renewRegularly(app, 5)
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(async () => { await app.close() })
  const { port } = app.server.address() as AddressInfo
  t.equal(await shownBy(t, port), 'old')
  const session = connectHttp2(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  t.teardown(() => { session.destroy() })
  const ask = async (): Promise<number | undefined> => {
    const [headers] = await once(session.request({ ':path': '/' }).resume(), 'response')
    return headers[':status']
  }
  t.equal(await ask(), 200)

  await point(files.certFile, renewed.certFile)
  await until(async () => lines.some(line => line.includes('the old one stays')))
  t.equal(await shownBy(t, port), 'old', 'as long as the key does not fit')
  await point(files.keyFile, renewed.keyFile)
  await until(async () => lines.some(line => line.includes('has been renewed')))
  t.equal(await shownBy(t, port), 'new')
  t.equal(await ask(), 200, 'on the connection that was open')
  t.equal(lines.filter(line => line.includes('the old one stays')).length, 1, 'it was complained of once')
  await app.close()
  t.equal(process.listenerCount('SIGHUP'), listeners, 'nothing is left of it')
})

t.test('SIGHUP has the files looked at', async t => {
  const { renewed, files } = await makeLinks(t)
  const tls = createTls({ ...files, certificate: readCertificate(files) }, { idleTimeoutMs: 30_000 })
  const app = fastify({ serverFactory: tls.serverFactory })
  tls.renewRegularly(app, 3600_000)
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(async () => { await app.close() })
  const { port } = app.server.address() as AddressInfo
  await rm(files.certFile)
  await rm(files.keyFile)
  await copyFile(renewed.certFile, files.certFile)
  await copyFile(renewed.keyFile, files.keyFile)
  t.equal(await shownBy(t, port), 'old')
  const signalled = once(process, 'SIGHUP')
  process.kill(process.pid, 'SIGHUP')
  await signalled
  t.equal(await shownBy(t, port), 'new')
})

t.test('what is no pair is not taken, and what is wrong with it is told once', async t => {
  const { old, renewed, files, folder } = await makeLinks(t)
  const taken: string[] = []
  const told: string[] = []
  const app = fastify({ logger: { stream: { write: line => { told.push(JSON.parse(line).msg) } } } })
  const certificate = readCertificate(files)
  const look = watchCertificate({ ...files, certificate }, { take: ({ cert }) => { taken.push(cert) }, log: app.log })
  const put = async (cert: string | undefined, key: string | undefined): Promise<void> => {
    for (const [file, from] of [[files.certFile, cert], [files.keyFile, key]] as const) {
      await rm(file, { force: true })
      if (from !== undefined) await copyFile(from, file)
    }
    for (let n = 0; n < 3; n++) look()
  }
  const torn = join(folder, 'torn.pem')
  await writeFile(torn, certificate.cert.slice(0, 300))
  await put(old.certFile, old.keyFile)
  t.strictSame(told, [], 'nothing is new')
  for (const [cert, key, what] of [
    [undefined, old.keyFile, /certificate.*cannot be read/], [renewed.certFile, undefined, /key.*cannot be read/], [torn, renewed.keyFile, /certificate.*holds none/],
    [renewed.certFile, torn, /key.*holds none/], [renewed.certFile, old.keyFile, /key.*another certificate/]
  ] as const) {
    await put(cert, key)
    t.match(told.splice(0), [what])
    t.strictSame(taken, [])
  }
  await put(renewed.certFile, renewed.keyFile)
  t.strictSame(told.splice(0), ['the certificate has been renewed'])
  t.equal(taken.length, 1)
  await put(old.certFile, old.keyFile)
  t.equal(taken.length, 2, 'and back again')
})

async function startServer (t: Test, times: Partial<TlsTimes>): Promise<{ url: string, ca: string, server: TlsServer }> {
  const files = await makeCertificate(t.testdir())
  const certificate = readCertificate(files)
  const server = new TlsServer(certificate, { handshakeMs: 60_000, keepAliveMs: 60_000, stalledMs: 60_000, lingerMs: 60_000, ...times })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`, ca: certificate.cert, server }
}

t.test('a connection of HTTP/2 without requests is ended in good order, and closed should its client not do so', async t => {
  const service = await startServer(t, { keepAliveMs: 50, lingerMs: 50 })
  service.server.on('request', (_request, response) => { response.end('pong') })
  const frames = await openFrames(t, service)
  await frames.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, requestFields('GET', '/')))
  const goaway = await frames.next(({ type }) => type === GOAWAY)
  t.equal(goaway?.payload.readUInt32BE(4), 0, 'NO_ERROR')
  t.equal(goaway?.payload.readUInt32BE(0), 1, 'and its request is known')
  await frames.closed
})

t.test('a connection on which nothing moves is closed, requests or not', async t => {
  const service = await startServer(t, { stalledMs: 50, keepAliveMs: 60_000 })
  service.server.on('request', (_request, response) => { response.write('x') })
  const frames = await openFrames(t, service)
  await frames.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, requestFields('GET', '/')))
  await frames.closed
  t.notOk(frames.received.some(({ type }) => type === GOAWAY))
})

t.test('a handshake that does not come to its end is broken off, and one that was refused ends its connection', async t => {
  const service = await startServer(t, { handshakeMs: 50, keepAliveMs: 50, lingerMs: 50 })
  const sockets = new Set<unknown>()
  service.server.on('connection', socket => {
    sockets.add(socket)
    socket.once('close', () => { sockets.delete(socket) })
  })
  const { port } = new URL(service.url)
  const socket = connectTcp(Number(port), '127.0.0.1')
  socket.on('error', () => {})
  socket.resume()
  await once(socket, 'close')
  t.pass('who says nothing')
  const frames = await openFrames(t, service)
  await frames.send(frame(SETTINGS, 0, 0, Buffer.concat(Array.from({ length: 1000 }, () => setting(4, 65_535)))))
  await frames.refused
  for (let n = 0; n < 100; n++) await frames.send(frame(PING, 0, 0, Buffer.alloc(8)))
  await frames.closed
  await until(async () => sockets.size === 0)
  t.pass('who was told to go')
})

import { once } from 'node:events'
import { Readable } from 'node:stream'
import fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { readCertificate } from '../../src/certificate.js'
import { limitBodyTime } from '../../src/plugins/body-deadline.js'
import { createSocketAnswers } from '../../src/plugins/node-answers.js'
import { answerProblems } from '../../src/plugins/problems.js'
import { createTls } from '../../src/plugins/tls.js'
import { drainUnreadBodies } from '../../src/plugins/unread-body.js'
import { listeningUrl } from '../../src/app.js'
import { makeCertificate } from '../certificates.js'
import { answerOf, begin, openSession, send } from '../wire/http2-client.js'
import { DATA, END_HEADERS, END_STREAM, frame, HEADERS, openFrames, PING, requestFields, RST_STREAM, setting } from '../wire/http2-frames.js'

/** An app that speaks HTTP/2. */
async function startApp (t: Test, build: (app: FastifyInstance) => void): Promise<{ url: string, ca: string }> {
  const files = await makeCertificate(t.testdir())
  const certificate = readCertificate(files)
  const app = fastify({ serverFactory: createTls({ ...files, certificate }, { idleTimeoutMs: 30_000 }).serverFactory, forceCloseConnections: true })
  answerProblems(app)
  build(app)
  app.get('/', () => 'pong')
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(async () => { await app.close() })
  return { url: listeningUrl(app), ca: certificate.cert }
}

t.test('a stream of HTTP/2 whose answer nobody reads is closed, however busy its connection is', async t => {
  let isDestroyed = false
  const service = await startApp(t, app => {
    drainUnreadBodies(app, 60_000, 200)
    const body = new Readable({ read () { this.push(Buffer.alloc(10_000)) }, destroy (error, done) { isDestroyed = true; done(error) } })
    app.get('/endless', (_request, reply) => reply.send(body))
  })
  const frames = await openFrames(t, service, { settings: setting(4, 100) })
  await frames.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, requestFields('GET', '/endless')))
  const busy = setInterval(() => { void frames.send(frame(PING, 0, 0, Buffer.alloc(8))) }, 20)
  const reset = await frames.next(({ type }) => type === RST_STREAM)
  clearInterval(busy)
  t.equal(reset?.payload.readUInt32BE(), 8, 'CANCEL')
  t.equal(frames.received.filter(({ type }) => type === DATA).reduce((sum, { payload }) => sum + payload.length, 0), 100, 'it had its window')
  t.ok(isDestroyed, 'and nothing is read for it any more')
})

t.test('a sender over HTTP/2 that goes on after its answer is listened to for a while, and its stream closed', async t => {
  const service = await startApp(t, app => {
    drainUnreadBodies(app, 200)
    app.addContentTypeParser('*', (_request, _payload, done) => { done(null) })
    app.post('/early', async (_request, reply) => await reply.code(403).send({ no: true }))
  })
  const session = await openSession(t, service)
  const stream = begin(session, 'POST', '/early', { 'content-type': 'audio/wav' })
  const closed = once(stream, 'close')
  stream.write(Buffer.alloc(1000))
  const writing = setInterval(() => { stream.write(Buffer.alloc(1000)) }, 20)
  t.match(await answerOf(stream), { status: 403, json: { no: true } })
  await closed
  clearInterval(writing)
  t.equal(stream.rstCode, 0, 'NO_ERROR')
  t.match(await send(session, 'GET', '/'), { status: 200 }, 'its connection goes on')
})

t.test('JSON over HTTP/2 that does not come to its end is 408, and its stream closed', async t => {
  const service = await startApp(t, app => {
    drainUnreadBodies(app)
    limitBodyTime(app, createSocketAnswers(), 100)
    app.post('/json', () => 'taken')
  })
  const session = await openSession(t, service)
  const stream = begin(session, 'POST', '/json', { 'content-type': 'application/json', 'content-length': 100 })
  const closed = once(stream, 'close')
  stream.write('{ "x":')
  const { status, json, headers } = await answerOf(stream)
  t.match({ status, json }, { status: 408, json: { code: 'sender_too_slow' } })
  t.notOk('connection' in headers)
  await closed
  t.match(await send(session, 'GET', '/'), { status: 200 }, 'its connection goes on')
})

import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { connect, type Socket } from 'node:net'
import fastify from 'fastify'
import t from 'tap'
import { listeningUrl } from '../../src/app.js'
import { createSenderPace } from '../../src/domain/sender-pace.js'
import { limitBodyTime } from '../../src/plugins/body-deadline.js'
import { createSocketAnswers } from '../../src/plugins/node-answers.js'
import { answerProblems } from '../../src/plugins/problems.js'
import { sample, startService, type Json, type Testing } from '../helper.js'

const SECOND_MS = 1000

t.test('a sender that is silent for the whole idle timeout is too slow', t => {
  const pace = createSenderPace({ idleTimeoutMs: 30 * SECOND_MS, minBytesPerSecond: 0 })
  t.equal(pace.patienceMs(), 30 * SECOND_MS)
  pace.waited(29_999, 0)
  t.equal(pace.patienceMs(), 1)
  pace.waited(0.5, 1)
  t.equal(pace.patienceMs(), 30 * SECOND_MS, 'a byte is enough to begin anew')
  pace.waited(10_000, 0)
  pace.waited(19_999, 0)
  t.throws(() => { pace.waited(1, 0) }, { code: 'sender_too_slow', message: 'Nothing came for 30 seconds.' }, 'silence adds up, however often it was looked at')
  t.end()
})

t.test('a sender that trickles below the rate is too slow, measured over each 30 seconds of waiting', t => {
  const pace = createSenderPace({ idleTimeoutMs: 30 * SECOND_MS, minBytesPerSecond: 1000 })
  for (let second = 0; second < 29; second++) pace.waited(SECOND_MS, 999)
  t.equal(pace.patienceMs(), SECOND_MS, 'it is waited for no longer than to the end of the stretch')
  t.throws(() => { pace.waited(SECOND_MS, 999) }, { code: 'sender_too_slow', facts: { expected: 1000, found: 999 } })

  const even = createSenderPace({ idleTimeoutMs: 30 * SECOND_MS, minBytesPerSecond: 1000 })
  for (let second = 0; second < 90; second++) even.waited(SECOND_MS, 1000)
  t.pass('exactly the rate is enough')

  const burst = createSenderPace({ idleTimeoutMs: 60 * SECOND_MS, minBytesPerSecond: 1000 })
  burst.waited(0, 10_000_000)
  burst.waited(30 * SECOND_MS, 1)
  for (let second = 0; second < 29; second++) burst.waited(SECOND_MS, 10)
  t.throws(() => { burst.waited(SECOND_MS, 10) }, { code: 'sender_too_slow', facts: { found: 10 } }, 'what came in a stretch before does not count in the next')
  t.end()
})

t.test('only waiting counts: bytes that are there at once are never too slow, and without limits nobody is', t => {
  const pace = createSenderPace({ idleTimeoutMs: SECOND_MS, minBytesPerSecond: 1_000_000 })
  for (let n = 0; n < 1000; n++) pace.waited(0, 1)
  const patient = createSenderPace({ idleTimeoutMs: SECOND_MS, minBytesPerSecond: 0 })
  for (let n = 0; n < 1000; n++) patient.waited(999, 1)
  t.equal(patient.patienceMs(), SECOND_MS)
  t.end()
})

function open (t: Testing, url: string): { socket: Socket, text: () => string, closed: Promise<void> } {
  const { port } = new URL(url)
  const socket = connect({ host: '127.0.0.1', port: Number(port) })
  t.teardown(() => { socket.destroy() })
  let text = ''
  socket.on('data', chunk => { text += String(chunk) })
  socket.on('error', () => {})
  return { socket, text: () => text, closed: new Promise<void>(resolve => { socket.on('close', () => { resolve() }) }) }
}

t.test('on the wire', async t => {
  const audio = await sample('ok/pcm16-16k.wav')

  await t.test('an upload that falls silent is 408 and disconnected, and leaves nothing but the reason', async t => {
    const { addUser, openSlot, call, files, url } = await startService(t, { settings: { UPLOAD_IDLE_TIMEOUT: '1' } })
    const { id } = await addUser()
    const slot = await openSlot(id)
    const { socket, text, closed } = open(t, url)
    socket.write(`PUT ${slot.path} HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n`)
    socket.write(audio.subarray(0, 1000))
    while (!text().includes('\r\n\r\n')) await once(socket, 'data')
    t.match(text(), /^HTTP\/1\.1 408 Request Timeout\r\n/)
    t.match(text(), /"code":"sender_too_slow"/)
    t.match((await call('GET', `/accounts/${id}/voicemails/${slot.id}`)).body, { status: 'pending', failure: { code: 'sender_too_slow', detail: 'Nothing came for 1 seconds.' } })
    t.strictSame(await files(), [])
    t.match(text(), /^connection: close\r$/im)
    await closed
    t.equal((await fetch(url + slot.path, { method: 'PUT', body: audio })).status, 200, 'the slot can still be filled')
  })

  await t.test('an upload that trickles is 408 with what was asked and what came', async t => {
    const { addUser, openSlot, call, files, url } = await startService(t, { settings: { UPLOAD_IDLE_TIMEOUT: '3600', UPLOAD_MIN_RATE: '1000' } })
    const { id } = await addUser()
    const slot = await openSlot(id)
    // Half a minute of waiting, in a moment: the clock that measures waiting runs two hundred times as fast.
    const { now } = performance
    const begin = now.call(performance)
    performance.now = () => begin + (now.call(performance) - begin) * 200
    t.teardown(() => { performance.now = now })
    const request = httpRequest(url + slot.path, { method: 'PUT', headers: { 'content-length': audio.length } })
    request.on('error', () => {})
    const answered = once(request, 'response')
    const trickling = new AbortController()
    void answered.then(() => { trickling.abort() })
    request.write(audio.subarray(0, 100))
    for (let at = 100; !trickling.signal.aborted; at++) {
      request.write(audio.subarray(at, at + 1))
      await new Promise(resolve => { setTimeout(resolve, 20) })
    }
    const [response] = await answered
    const [chunk] = await once(response, 'data')
    request.destroy()
    const body: Json = JSON.parse(String(chunk))
    t.equal(response.statusCode, 408)
    t.match(body, { code: 'sender_too_slow', expected: 1000, found: Number })
    t.ok(body.found < 1000)
    t.match((await call('GET', `/accounts/${id}/voicemails/${slot.id}`)).body.failure, { code: 'sender_too_slow', detail: /bytes per second/ })
    t.strictSame(await files(), [])
  })
})

t.test('a JSON body that never ends is 408 and disconnected, and disturbs nobody', async t => {
  const app = fastify()
  answerProblems(app)
  const answers = createSocketAnswers()
  answers.watch(app.server)
  limitBodyTime(app, answers, 300)
  app.post('/', async ({ body }) => body)
  app.get('/', async () => 'still here')
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(async () => { await app.close() })
  const url = listeningUrl(app)

  const half = open(t, url)
  half.socket.write('POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{"a":')
  const chunked = open(t, url)
  chunked.socket.write('POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"a":\r\n')
  const other = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"a":1}' })
  t.strictSame([other.status, await other.json()], [200, { a: 1 }])
  for (const { text, closed } of [half, chunked]) {
    await closed
    t.match(text(), /^HTTP\/1\.1 408 Request Timeout\r\n[^]*\r\nconnection: close\r\n[^]*"code":"sender_too_slow"/i)
    t.equal(text().split('HTTP/1.1').length, 2, 'one answer')
  }

  const refused = open(t, url)
  refused.socket.write('POST / HTTP/1.1\r\nhost: x\r\ncontent-type: text/x\r\ncontent-length: 20\r\n\r\nhalf')
  await refused.closed
  t.match(refused.text(), /^HTTP\/1\.1 415 /)
  t.equal(refused.text().split('HTTP/1.1').length, 2, 'what has been answered is cut off without a second answer')

  const kept = open(t, url)
  const ask = 'POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}'
  kept.socket.write(ask)
  await once(kept.socket, 'data')
  // Longer than the deadline: shown by a second connection that meets it meanwhile.
  const late = open(t, url)
  late.socket.write('POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{')
  await late.closed
  kept.socket.write(ask)
  while (kept.text().split('HTTP/1.1 200').length < 3) await once(kept.socket, 'data')
  t.pass('a deadline ends with its body: the connection is good for another request')
})

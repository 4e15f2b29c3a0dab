import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { connect as connectTcp } from 'node:net'
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls'
import t, { type Test } from 'tap'
import { Agent, fetch as undiciFetch } from 'undici'
import { DURATIONS, sample, startTlsService, wavOf, type Json, type TlsService } from '../helper.js'
import { startProgram, startServer } from '../process.js'
import { makeCertificate } from '../certificates.js'
import { until } from './connection.js'
import { answerOf, begin, openSession, send } from './http2-client.js'
import { DATA, END_HEADERS, END_STREAM, frame, HEADERS, openFrames, requestFields, RST_STREAM, uint32 } from './http2-frames.js'

const audio = await sample('ok/pcm16-16k.wav')

/** A connection of TLS on which a test says what it wants. Resolves when its handshake is over. */
async function openTls (t: Test, { url, ca }: TlsService, options: ConnectionOptions = {}): Promise<TLSSocket> {
  const socket = connectTls({ host: '127.0.0.1', port: Number(new URL(url).port), ca, ...options })
  t.teardown(() => { socket.destroy() })
  await once(socket, 'secureConnect')
  return socket
}

async function textUntilEnd (socket: TLSSocket): Promise<string> {
  let text = ''
  for await (const piece of socket) text += String(piece)
  return text
}

t.test('the process speaks HTTP/2 and HTTP/1.1 over TLS, and says so in its URLs', async t => {
  const service = await startTlsService(t)
  t.match(service.url, /^https:\/\/127\.0\.0\.1:\d+$/)
  const { id } = await service.addUser()
  const slot = await service.openSlot(id)
  t.ok(slot.uploadUrl.startsWith(`${service.url}/uploads/`), 'signed URLs begin with https')

  const session = await openSession(t, service)
  t.equal(session.alpnProtocol, 'h2')
  t.match(await send(session, 'GET', '/ping'), { status: 200, text: 'pong' })
  for (const ALPNProtocols of [['http/1.1'], undefined]) {
    const socket = await openTls(t, service, { ...ALPNProtocols !== undefined && { ALPNProtocols } })
    socket.write('GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n')
    t.match(await textUntilEnd(socket), /^HTTP\/1\.1 200 OK\r\n[^]*pong/, ALPNProtocols === undefined ? 'without ALPN' : 'asked for')
  }
  const dispatcher = new Agent({ allowH2: true, connect: { ca: service.ca } })
  t.teardown(async () => { await dispatcher.destroy() })
  const fetched = await undiciFetch(`${service.url}/ping`, { dispatcher })
  t.equal(await fetched.text(), 'pong', 'another client with HTTP/2')
})

t.test('TLS 1.2 and 1.3 are spoken, nothing older, and nothing that is no TLS', async t => {
  const service = await startTlsService(t)
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    t.equal((await openTls(t, service, { minVersion: version, maxVersion: version })).getProtocol(), version)
  }
  for (const version of ['TLSv1', 'TLSv1.1'] as const) {
    await t.rejects(openTls(t, service, { minVersion: version, maxVersion: version, ciphers: 'DEFAULT@SECLEVEL=0' }), { code: /^ERR_SSL_|ECONNRESET/ }, version)
  }
  await t.rejects(openTls(t, service, { ALPNProtocols: ['spdy/3'] }), 'a protocol that is not spoken here')
  const port = Number(new URL(service.url).port)
  for (const bytes of ['GET /ping HTTP/1.1\r\nhost: x\r\n\r\n', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', '\x16\x03\x01\x00\x05hello', '\x80\x80']) {
    const socket = connectTcp(port, '127.0.0.1')
    socket.on('error', () => {})
    let answer = ''
    socket.on('data', piece => { answer += piece.toString('latin1') })
    const closed = once(socket, 'close')
    socket.end(bytes, 'latin1')
    await closed
    t.notMatch(answer, /HTTP/, JSON.stringify(bytes))
  }
  const session = await openSession(t, service)
  t.match(await send(session, 'GET', '/ping'), { status: 200 }, 'and the service goes on')
})

t.test('a voicemail is uploaded, heard and deleted over HTTP/2', async t => {
  const service = await startTlsService(t)
  const session = await openSession(t, service)
  const { id, key } = await service.addUser()
  for (const [title, headers] of [['with a length', { 'content-length': audio.length }], ['without one', {}], ['after 100 Continue', { expect: '100-continue' }]] as const) {
    const slot = await service.openSlot(id)
    const stream = begin(session, 'PUT', slot.path, headers)
    const answer = answerOf(stream)
    if ('expect' in headers) await once(stream, 'continue')
    stream.end(audio)
    const { status, json } = await answer
    t.match({ status, json }, { status: 200, json: { status: 'stored', file_size: audio.length, duration: DURATIONS['pcm16-16k.wav'] } }, title)
    const path = new URL(json.download_url).pathname
    const whole = await send(session, 'GET', path)
    t.ok(whole.bytes.equals(audio), 'every byte of it')
    t.match(whole, { status: 200, headers: { 'content-length': String(audio.length), 'accept-ranges': 'bytes' } })
    t.strictSame(Object.keys(whole.headers).filter(name => /^(connection|keep-alive|transfer-encoding)$/.test(name)), [])
    const etag = String(whole.headers['etag'])
    const part = await send(session, 'GET', path, { range: 'bytes=0-1' })
    t.match(part, { status: 206, headers: { 'content-range': `bytes 0-1/${audio.length}`, 'content-length': '2' } })
    t.ok(part.bytes.equals(audio.subarray(0, 2)))
    t.match(await send(session, 'GET', path, { range: 'bytes=-0' }), { status: 416, headers: { 'content-range': `bytes */${audio.length}` } })
    t.match(await send(session, 'GET', path, { 'if-none-match': etag }), { status: 304, text: '' })
    t.match(await send(session, 'GET', path, { 'if-match': '"x"' }), { status: 412, json: { code: 'precondition_failed' } })
    t.match(await send(session, 'HEAD', path), { status: 200, text: '', headers: { 'content-length': String(audio.length), etag } })
    t.match(await send(session, 'DELETE', `/accounts/me/voicemails/${slot.id}`, { 'x-api-key': key }), { status: 200, json: { deleted: true } })
    t.match(await send(session, 'GET', path), { status: 404, json: { code: 'not_found' } })
  }
  t.strictSame(await service.files(), [])
})

t.test('a voicemail larger than what is read at once comes whole, many at a time', async t => {
  const service = await startTlsService(t, { settings: { MAX_UPLOAD_SIZE: '20000000' } })
  const session = await openSession(t, service)
  const { id } = await service.addUser()
  const wav = wavOf(5_000_000)
  const slot = await service.openSlot(id)
  const { json } = await send(session, 'PUT', slot.path, {}, wav)
  const path = new URL(json.download_url).pathname
  const answers = await Promise.all(Array.from({ length: 20 }, async (_, n) => ({ n, ...await send(session, 'GET', path, { range: `bytes=${n * 1000}-` }) })))
  t.strictSame(answers.filter(({ n, status, bytes }) => status !== 206 || !bytes.equals(wav.subarray(n * 1000))).map(({ n }) => n), [])
})

t.test('errors, methods, pages and the log are as over HTTP/1.1', async t => {
  const service = await startTlsService(t, { settings: { TRUST_PROXY: '127.0.0.1' } })
  const session = await openSession(t, service)
  const { id, key } = await service.addUser()
  t.match(await send(session, 'GET', '/nothing'), { status: 404, headers: { 'content-type': 'application/problem+json' }, json: { code: 'not_found' } })
  t.match(await send(session, 'GET', `/accounts/${id}`), { status: 401, headers: { 'www-authenticate': /./ } })
  t.match(await send(session, 'PUT', '/accounts', { 'x-api-key': service.adminKey }, Buffer.from('x')), { status: 405, headers: { allow: 'GET, HEAD, POST' } })
  t.match(await send(session, 'GET', '/%zz'), { status: 400, json: { code: 'malformed_request' } })
  t.match(await send(session, 'POST', '/accounts', { 'x-api-key': service.adminKey, 'content-type': 'application/json' }, Buffer.from('{')), { status: 400, json: { code: 'malformed_request' } })
  t.match(await send(session, 'POST', '/accounts', { 'x-api-key': service.adminKey, 'content-type': 'text/plain' }, Buffer.from('x')), { status: 415, json: { code: 'unsupported_media_type' } })
  t.match(await send(session, 'POST', '/accounts', { 'x-api-key': service.adminKey, 'content-type': 'application/json' }, Buffer.alloc(100_000, ' ')), { status: 413, json: { code: 'body_too_large' } })
  t.match(await send(session, 'GET', '/docs'), { status: 200, headers: { 'content-type': /^text\/html/ } })
  t.match(await send(session, 'GET', '/openapi.json'), { status: 200, json: { openapi: '3.1.0' } })
  t.match(await send(session, 'GET', '/metrics'), { status: 200, text: /http_request_duration_seconds/ })
  t.match(await send(session, 'GET', '/health/ready'), { status: 200 })
  t.match(await send(session, 'GET', `/api/accounts/${id}`, { 'x-api-key': key, 'x-forwarded-for': '192.0.2.9' }), { status: 200, json: { id } })
  const requests = (): Json[] => service.log.map(line => JSON.parse(line)).filter(({ msg }) => msg === 'request')
  await until(async () => requests().at(-1)?.route === '/accounts/:id')
  const lines = requests()
  t.match(lines.at(-1), { method: 'GET', route: '/accounts/:id', account: String(id), status: 200, address: '192.0.2.9' })
  t.match(lines.find(({ route }) => route === '/docs'), { address: '127.0.0.1' })
  t.notOk(service.log.some(line => JSON.parse(line).level >= 50), 'no errors in the log')
})

t.test('who breaks an upload off leaves nothing but the note of it, however it is done', async t => {
  const service = await startTlsService(t)
  const { id } = await service.addUser()
  // No more than fits the first window of a connection.
  const half = audio.subarray(0, 60_000)
  for (const [title, headers] of [['with a length', { 'content-length': String(audio.length) }], ['without one', {}]] as const) {
    for (const code of [0, 2, 8, undefined]) {
      const slot = await service.openSlot(id)
      // Node's client would end the body first.
      const frames = await openFrames(t, service)
      await frames.send(frame(HEADERS, END_HEADERS, 1, requestFields('PUT', slot.path, headers)))
      for (let at = 0; at < half.length; at += 16_000) await frames.send(frame(DATA, 0, 1, half.subarray(at, at + 16_000)))
      await until(async () => (await service.files()).length === 1)
      if (code === undefined) frames.destroy()
      else await frames.send(frame(RST_STREAM, 0, 1, uint32(code)))
      const show = async () => (await service.call('GET', `/accounts/${id}/voicemails/${slot.id}`)).body
      await until(async () => (await show()).failure !== null)
      t.match(await show(), { status: 'pending', failure: { code: 'body_incomplete' } }, `${title}, ${code === undefined ? 'with the connection' : `RST_STREAM ${code}`}`)
      t.strictSame(await service.files(), [])
      const line = () => service.log.map(text => JSON.parse(text)).find(({ msg, voicemail, method }) => msg === 'request' && voicemail === slot.id && method === 'PUT')
      await until(async () => line() !== undefined)
      t.match(line(), { outcome: 'body_incomplete', address: '127.0.0.1' }, 'and it is in the log')
      const again = await openSession(t, service)
      t.match(await send(again, 'PUT', slot.path, {}, audio), { status: 200 }, 'the slot takes a recording still')
      await service.call('DELETE', `/accounts/${id}/voicemails/${slot.id}`)
    }
  }
})

t.test('who sent everything, and went away without waiting for the answer, has sent everything', async t => {
  const service = await startTlsService(t)
  const { id } = await service.addUser()
  const pieces = Array.from({ length: Math.ceil(audio.length / 16_000) }, (_none, at) => audio.subarray(at * 16_000, (at + 1) * 16_000))
  for (let n = 0; n < 5; n++) {
    const slot = await service.openSlot(id)
    // Node's client may break off before it has sent what it was given.
    const frames = await openFrames(t, service)
    await frames.send(frame(HEADERS, END_HEADERS, 1, requestFields('PUT', slot.path, { 'content-length': String(audio.length) })))
    for (const piece of pieces.slice(0, -1)) await frames.send(frame(DATA, 0, 1, piece))
    await until(async () => (await service.files()).length > n)
    await frames.send(frame(DATA, END_STREAM, 1, pieces.at(-1)), frame(RST_STREAM, 0, 1, uint32(8)))
    const show = async () => (await service.call('GET', `/accounts/${id}/voicemails/${slot.id}`)).body
    await until(async () => { const { status, failure } = await show(); return status === 'stored' || failure !== null })
    t.match(await show(), { status: 'stored', failure: null, file_size: audio.length })
  }
})

t.test('an answer that comes before the body was read reaches its sender, and other streams go on', async t => {
  const service = await startTlsService(t, { settings: { MAX_UPLOAD_SIZE: '1000000' } })
  const session = await openSession(t, service)
  const { id } = await service.addUser()
  const large = wavOf(10_000_000)
  for (const [title, headers, body, expected] of [
    ['too large, as declared', { 'content-length': large.length }, large, { status: 413, json: { code: 'upload_too_large' } }],
    ['too large, undeclared', {}, large, { status: 413, json: { code: 'upload_too_large' } }],
    ['of another type, as declared', { 'content-type': 'audio/mpeg', 'content-length': large.length }, large, { status: 415, json: { code: 'unsupported_media_type' } }],
    ['of another type, as found', {}, Buffer.alloc(10_000_000), { status: 415, json: { code: 'unsupported_audio' } }]
  ] as const) {
    const slot = await service.openSlot(id)
    const stream = begin(session, 'PUT', slot.path, headers)
    const answer = answerOf(stream)
    stream.end(body)
    const drained = once(stream, 'close')
    const { status, json, headers: answered } = await answer
    t.match({ status, json }, expected, title)
    t.notOk('connection' in answered)
    t.match(await send(session, 'GET', '/ping'), { status: 200 }, 'on the same connection')
    await drained
    t.equal(stream.rstCode, 0, 'and what it had still to send is taken')
    t.match((await service.call('GET', `/accounts/${id}/voicemails/${slot.id}`)).body, { status: 'pending', failure: { code: expected.json.code } })
  }
  t.strictSame(await service.files(), [])
  const forged = await send(session, 'PUT', '/uploads/x', { 'content-length': large.length }, large)
  t.match(forged, { status: 403, json: { code: 'invalid_signature' } })
})

t.test('who falls silent, or sends too slowly, is told so, and its stream is closed', async t => {
  const service = await startTlsService(t, { settings: { UPLOAD_IDLE_TIMEOUT: '1' } })
  const session = await openSession(t, service)
  const { id } = await service.addUser()
  const slot = await service.openSlot(id)
  const stream = begin(session, 'PUT', slot.path, { 'content-length': audio.length })
  const closed = once(stream, 'close')
  stream.write(audio.subarray(0, 1000))
  const { status, json } = await answerOf(stream)
  t.match({ status, json }, { status: 408, json: { code: 'sender_too_slow' } })
  await closed
  t.equal(stream.rstCode, 0, 'in good order')
  t.match(await send(session, 'GET', '/ping'), { status: 200 }, 'its connection goes on')
  t.strictSame(await service.files(), [])
  t.match((await service.call('GET', `/accounts/${id}/voicemails/${slot.id}`)).body, { failure: { code: 'sender_too_slow' } })
})

t.test('the process tells its https URL, ends with its connections open, and does not start with a certificate that is none', async t => {
  const cwd = t.testdir()
  const [{ certFile, keyFile }, other] = [await makeCertificate(cwd), await makeCertificate(cwd, 'other')]
  const settings = { PORT: '0', MIN_FREE_DISK: '0', TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile }
  const server = await startServer(t, { cwd, settings })
  t.match(server.url, /^https:/)
  const session = await openSession(t, { url: server.url, ca: await readFile(certFile, 'utf8') })
  t.match(await send(session, 'GET', '/ping'), { status: 200, text: 'pong' })
  t.equal(await server.stop('SIGTERM'), 0)

  const program = startProgram(t, { cwd, settings: { ...settings, TLS_KEY_FILE: other.keyFile } })
  t.equal(await program.ended, 2)
  t.equal(program.err(), `voicemaild: TLS_KEY_FILE: expected a file with the private key of the certificate in PEM, without a passphrase, found ${JSON.stringify(other.keyFile)}, which is that of another certificate.\n`)
})

import { readFile } from 'node:fs/promises'
import { Agent, request as httpRequest, type IncomingMessage } from 'node:http'
import { connect, createSecureServer, type ClientHttp2Session, type OutgoingHttpHeaders } from 'node:http2'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Agent as UndiciAgent, fetch as undiciFetch } from 'undici'
import { makeCertificate } from '../certificates.js'
import { DURATIONS, sample, startService, startTlsService, type Json, type Service, type Testing } from '../helper.js'
import { connectTo, head } from './connection.js'
import { openSession } from './http2-client.js'

/** Its default longest message, 120 s at 0.1 MiB/s: below it takes no call. */
const RECORDER_NEEDS_BYTES = 12_582_840
const CALLS = ['flexisip-voicemail-8.6s', 'flexisip-voicemail-0.27s'] as const

/** What the recorder says, whatever carries it: method, path, headers in lower case, body. */
type Send = (method: string, path: string, headers: Record<string, string>, body?: Uint8Array) => Promise<{ status: number, body: Json }>

/** TLS with HTTP/2 only in front of the service, as nginx would be, with so many connections behind it. */
async function startProxy (t: Pick<Testing, 'teardown'>, service: Service, maxSockets: number): Promise<{ url: string }> {
  const { certFile, keyFile } = await makeCertificate(join(service.dataFolder, '..'))
  const agent = new Agent({ keepAlive: true, maxSockets })
  const proxy = createSecureServer({ key: await readFile(keyFile), cert: await readFile(certFile), settings: { maxConcurrentStreams: 1000 } })
  proxy.on('stream', (stream, headers) => {
    const passed = Object.fromEntries(Object.entries(headers).filter(([name]) => !name.startsWith(':')))
    const onward = httpRequest(service.url, { agent, method: headers[':method'], path: headers[':path'], headers: { ...passed, host: headers[':authority'] } })
    onward.on('response', (answer: IncomingMessage) => {
      const { connection, 'keep-alive': keepAlive, 'transfer-encoding': coding, ...rest } = answer.headers
      stream.respond({ ':status': answer.statusCode, ...rest })
      answer.pipe(stream)
    })
    onward.on('error', error => { stream.destroy(error) })
    stream.pipe(onward)
  })
  await new Promise<void>(resolve => { proxy.listen(0, '127.0.0.1', resolve) })
  t.teardown(async () => {
    agent.destroy()
    await new Promise(resolve => { proxy.close(resolve) })
  })
  const address = proxy.address()
  if (address === null || typeof address === 'string') throw new Error('The proxy does not listen.')
  return { url: `https://127.0.0.1:${address.port}` }
}

function overHttp2 (session: ClientHttp2Session): Send {
  return async (method, path, headers, body) => await new Promise((resolve, reject) => {
    const wanted: OutgoingHttpHeaders = { ':method': method, ':path': path, ...headers }
    const stream = session.request(wanted, { endStream: body === undefined })
    let status = 0
    let text = ''
    stream.setEncoding('utf8')
    stream.on('response', headers => { status = headers[':status'] ?? 0 })
    stream.on('data', (piece: string) => { text += piece })
    stream.on('end', () => { resolve({ status, body: JSON.parse(text) }) })
    stream.on('error', reject)
    if (body !== undefined) stream.end(body)
  })
}

/** The three calls of one recording, and what the slot said. */
async function record (send: Send, { key, sipUri, body, pathOf = path => path }: { key: string, sipUri: string, body: Buffer, pathOf?: (path: string) => string }): Promise<Json> {
  const search = await send('GET', `/api/accounts/${sipUri}/search`, { 'x-api-key': key, 'content-type': 'application/json', 'content-length': '0' })
  const { id } = search.body
  const wish = Buffer.from('{"content_type":"audio/wav","sip_from":"sip:alice@sip.example.org"}')
  const slot = await send('POST', `/api/accounts/${id}/voicemails`, { 'x-api-key': key, 'content-type': 'application/json', 'content-length': String(wish.length) }, wish)
  const uploaded = await send('POST', pathOf(new URL(slot.body.upload_url).pathname), {
    'x-api-key': key, 'content-type': 'multipart/form-data; boundary="simple boundary"', 'content-length': String(body.length)
  }, body)
  return { search, slot, uploaded, id: slot.body.id }
}

t.test('the recorder\'s three calls leave a voicemail: over the service\'s own HTTP/2, over that of a proxy, and over plain HTTP', async t => {
  for (const carrier of ['HTTP/2', 'HTTP/2 of a proxy', 'HTTP/1.1'] as const) {
    t.test(carrier, async t => {
      // Its base URL is what it is told; the service itself is never named to it.
      const settings = { PUBLIC_URL: 'https://voicemail.example.org' }
      if (carrier === 'HTTP/2') {
        const service = await startTlsService(t, { settings })
        await recordCalls(t, service, overHttp2(await openSession(t, service)), service.ca)
        return
      }
      const service = await startService(t, { settings })
      if (carrier === 'HTTP/1.1') {
        await recordCalls(t, service, overHttp1(t, service))
        return
      }
      const session = connect((await startProxy(t, service, 4)).url, { rejectUnauthorized: false })
      t.teardown(() => { session.destroy() })
      await new Promise(resolve => { session.once('connect', resolve) })
      t.equal(session.alpnProtocol, 'h2')
      await recordCalls(t, service, overHttp2(session))
    })
  }
})

function overHttp1 (t: Testing, service: Service): Send {
  return async (method, path, headers, body) => {
    const connection = connectTo(t, service.url)
    await connection.send(head(method, path, headers), body ?? '')
    const answer = await connection.answer()
    connection.socket.destroy()
    return { status: answer.status, body: JSON.parse(answer.body) }
  }
}

/** What INTEROP.md tells of the recorder, line by line. */
async function recordCalls (t: Test, service: Service, send: Send, ca?: string): Promise<void> {
  const key = service.adminKey
  const bob = await service.addUser('sip:bob@sip.example.org')

  for (const call of CALLS) {
    const file = await sample(`ok/${call}.wav`)
    const body = await sample(`ok/${call}.multipart`)
    const { search, slot, uploaded, id } = await record(send, { key, sipUri: 'bob@sip.example.org', body })

    t.match(search, { status: 200, body: { id: bob.id, sip_uri: 'sip:bob@sip.example.org', call_forwardings: [] } })
    t.ok(Number.isInteger(search.body.id) && search.body.id <= 0x7fffffff, 'a 32-bit integer')
    t.strictSame(search.body.call_forwardings, [])

    t.match(slot, { status: 201, body: { id: String, sip_from: 'sip:alice@sip.example.org', upload_url: String, content_type: 'audio/wav', max_upload_size: Number } })
    t.ok(slot.body.max_upload_size >= RECORDER_NEEDS_BYTES && slot.body.max_upload_size < 2 ** 31, 'it takes calls')
    const uploadUrl = new URL(slot.body.upload_url)
    t.strictSame([uploadUrl.origin, uploadUrl.search, uploadUrl.hash], ['https://voicemail.example.org', '', ''])
    t.match(uploadUrl.pathname, /^\/[A-Za-z0-9/;=:@~._-]+$/, 'only what survives the recorder')
    t.equal(slot.body.upload_url, `https://voicemail.example.org${uploadUrl.pathname}`)

    t.match(uploaded, { status: 200, body: { id, status: 'stored', file_size: file.length + 2, duration: DURATIONS[`${call}.wav`], sip_from: 'sip:alice@sip.example.org', failure: null } })
    const stored = await download(service, new URL(uploaded.body.download_url).pathname, ca)
    t.ok(stored.equals(Buffer.concat([file, Buffer.from('\r\n')])), 'the file as it came, with the line break that the recorder adds')
    t.match((await service.call('GET', `/accounts/${bob.id}/voicemails/${id}`)).body, { status: 'stored', duration: DURATIONS[`${call}.wav`] })
  }
  t.equal((await service.files()).length, 2)

  const missing = await send('GET', '/api/accounts/nobody@sip.example.org/search', { 'x-api-key': key, 'content-type': 'application/json', 'content-length': '0' })
  t.match(missing, { status: 404, body: { code: 'not_found' } }, 'whoever is not known here')
}

async function download ({ url }: Service, path: string, ca?: string): Promise<Buffer> {
  const dispatcher = new UndiciAgent({ connect: { ca } })
  try {
    return Buffer.from(await (await undiciFetch(url + path, { dispatcher })).arrayBuffer())
  } finally {
    await dispatcher.destroy()
  }
}

t.test('the path of an upload URL is the same with escapes that were not needed, and with them decoded', async t => {
  const service = await startService(t)
  await service.addUser('sip:bob@sip.example.org')
  const body = await sample('ok/flexisip-voicemail-0.27s.multipart')
  const send: Send = async (method, path, headers, body) => {
    const connection = connectTo(t, service.url)
    await connection.send(head(method, path, headers), body ?? '')
    const answer = await connection.answer()
    return { status: answer.status, body: JSON.parse(answer.body) }
  }
  const escape = (text: string): string => `%${text.charCodeAt(0).toString(16).padStart(2, '0')}`
  for (const [title, pathOf] of [
    ['as it is', (path: string) => path],
    ['as the recorder writes it', (path: string) => path.replaceAll(/%[0-9A-Fa-f]{2}/g, decodeURIComponent)],
    ['with letters escaped', (path: string) => path.replaceAll(/[A-Za-z](?=[^/]*$)/g, escape)],
    ['with letters escaped in upper case', (path: string) => path.replaceAll(/[A-Za-z](?=[^/]*$)/g, letter => escape(letter).toUpperCase())],
    ['with all but slashes escaped', (path: string) => path.replaceAll(/[^/](?=[^/]*$)/g, escape)],
    ['with ; and = escaped', (path: string) => path.replaceAll(';', '%3B').replaceAll('=', '%3d')],
    ['below /api', (path: string) => `/api${path}`]
  ] as const) {
    const { uploaded } = await record(send, { key: service.adminKey, sipUri: 'bob@sip.example.org', body, pathOf })
    t.match(uploaded, { status: 200, body: { status: 'stored' } }, title)
  }
})

t.test('a recorder that would be told no is told so before anyone speaks', async t => {
  const service = await startService(t, { settings: { MIN_FREE_DISK: String(Number.MAX_SAFE_INTEGER) } })
  const { id } = await service.addUser()
  t.match(await service.call('POST', `/api/accounts/${id}/voicemails`, { content_type: 'audio/wav', sip_from: 'sip:alice@sip.example.org' }), {
    status: 507, body: { code: 'insufficient_storage' }
  })
})

t.test('of 1,000 calls that end together, over one connection, every one is stored', async t => {
  const service = await startTlsService(t, { settings: { LOG_LEVEL: 'error' } })
  const key = service.adminKey
  const session = await openSession(t, service)
  const send = overHttp2(session)
  await service.addUser('sip:bob@sip.example.org')
  const body = await sample('ok/flexisip-voicemail-0.27s.multipart')
  const fileStart = body.indexOf('RIFF')
  // Each of another sound, so that no two can be mistaken for one another.
  const calls = await Promise.all(Array.from({ length: 1000 }, async (_, n) => {
    const own = Buffer.from(body)
    own.writeUInt32LE(n, fileStart + 1000)
    const { uploaded, id } = await record(send, { key, sipUri: 'bob@sip.example.org', body: own })
    return { own, uploaded, id }
  }))
  t.strictSame(calls.filter(({ uploaded }) => uploaded.status !== 200).map(({ uploaded }) => uploaded.body), [])
  t.equal(new Set(calls.map(({ id }) => id)).size, 1000)
  const files = await service.files()
  t.equal(files.length, 1000)
  t.equal(new Set(files).size, 1000, 'each in a file of its own')
  t.equal(new Set(calls.map(({ uploaded }) => uploaded.body.sha256)).size, 1000)
  for (const n of [0, 500, 999]) {
    const stored = await download(service, new URL(calls[n]?.uploaded.body.download_url).pathname, service.ca)
    t.equal(stored.readUInt32LE(1000), n, 'and holds what its own caller said')
  }
  const [{ voicemails }] = (await service.call('GET', '/accounts')).body
  t.strictSame(voicemails, { total: 1000, unread: 1000 })
})

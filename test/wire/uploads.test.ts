import fastify from 'fastify'
import t, { type Test } from 'tap'
import { drainUnreadBodies } from '../../src/plugins/unread-body.js'
import { sample, startService, wavOf, type Json, type Service } from '../helper.js'
import { chunk, connectTo, head, until, type Connection } from './connection.js'

const MAX_BYTES = 1_000_000
const LARGE_BYTES = 10_000_000
const FORM = 'multipart/form-data; boundary="simple boundary"'

/** Of every service that these tests started. */
const logs: string[][] = []

/** A slot, and what has become of it. */
interface Trial {
  id: string
  path: string
  connect: () => Connection
  show: () => Promise<Json>
  /** Resolves when a part of an upload is on the disk. */
  begun: () => Promise<void>
  /** Nothing is on the disk, the slot tells why, and takes a recording still. */
  failed: (code: string) => Promise<void>
}

async function startTrials (t: Test, settings: Record<string, string> = {}, clock?: () => number): Promise<{ service: Service, trial: () => Promise<Trial> }> {
  const service = await startService(t, { settings: { MAX_UPLOAD_SIZE: String(MAX_BYTES), ...settings }, ...clock !== undefined && { clock } })
  const { id: accountId } = await service.addUser()
  const short = await sample('ok/flexisip-voicemail-0.27s.wav')
  const trial = async (): Promise<Trial> => {
    const { id, path, uploadUrl } = await service.openSlot(accountId)
    const show = async (): Promise<Json> => (await service.call('GET', `/accounts/${accountId}/voicemails/${id}`)).body
    return {
      id,
      path,
      show,
      connect: () => connectTo(t, service.url),
      begun: async () => { await until(async () => (await service.files()).length > 0) },
      failed: async code => {
        await until(async () => (await show()).failure !== null)
        await until(async () => (await service.files()).length === 0)
        t.match(await show(), { status: 'pending', file_size: null, uploaded_at: null, failure: { code, detail: /./ } }, code)
        const retried = await fetch(uploadUrl, { method: 'PUT', body: short })
        t.equal(retried.status, 200, 'the slot still takes a recording')
        t.match(await show(), { status: 'stored', file_size: short.length, failure: null })
        await service.call('DELETE', `/accounts/${accountId}/voicemails/${id}`)
        t.strictSame(await service.files(), [], 'nothing is left')
      }
    }
  }
  logs.push(service.log)
  return { service, trial }
}

function formOf (bytes: Uint8Array, name = 'file'): Buffer {
  const partHead = `--simple boundary\r\nContent-Disposition: form-data; name="${name}"; filename="/x/y.wav"\r\nContent-Type: audio/wav\r\n\r\n`
  return Buffer.concat([Buffer.from(partHead), bytes, Buffer.from('\r\n--simple boundary--')])
}

t.test('a sender that goes away in the middle leaves nothing but the note of it', async t => {
  const { trial } = await startTrials(t)
  const wav = wavOf(600_000)
  for (const [title, headers, body] of [
    ['with a length', { 'content-length': wav.length }, wav.subarray(0, 400_000)],
    ['with a length, within the header', { 'content-length': wav.length }, wav.subarray(0, 20)],
    ['with a length, after the headers', { 'content-length': wav.length }, wav.subarray(0, 0)],
    ['in chunks', { 'transfer-encoding': 'chunked' }, chunk(wav.subarray(0, 400_000))],
    ['in chunks, before the last one, with the whole file sent', { 'transfer-encoding': 'chunked' }, chunk(wav)],
    ['within a form', { 'content-type': FORM, 'content-length': formOf(wav).length }, formOf(wav).subarray(0, 400_000)],
    ['within a form, after the file', { 'content-type': FORM, 'content-length': formOf(wav).length }, formOf(wav).subarray(0, -1)]
  ] as const) {
    for (const leave of ['destroy', 'resetAndDestroy', 'end'] as const) {
      const { path, connect, begun, failed } = await trial()
      const connection = connect()
      await connection.send(head('POST', path, headers), body)
      if (body.length > 300_000) await begun()
      connection.socket[leave]()
      if (leave === 'end') t.equal((await connection.answer()).status, 400, `${title}: who ended only its own side is answered`)
      await connection.closed
      await failed('body_incomplete')
    }
  }
})

t.test('a body cut anywhere is refused', async t => {
  const { trial } = await startTrials(t)
  // Without the line break after the last boundary, which is nobody's.
  const body = (await sample('ok/flexisip-voicemail-0.27s.multipart')).subarray(0, -2)
  const fileStart = body.indexOf('RIFF')
  const cuts = [0, 1, 10, fileStart - 1, fileStart, fileStart + 1, fileStart + 50, 2000, 4000, ...Array.from({ length: 24 }, (_, n) => body.length - 24 + n)]
  const { path, connect, failed, show } = await trial()
  const connection = connect()
  for (const cut of cuts) {
    await connection.send(head('POST', path, { 'content-type': FORM, 'content-length': cut }), body.subarray(0, cut))
    const { status, body: text } = await connection.answer()
    t.match({ status, body: JSON.parse(text) }, { status: 400, body: { code: 'malformed_multipart' } }, `a form cut at ${cut}`)
    t.match(await show(), { status: 'pending', failure: { code: 'malformed_multipart' } })
  }
  await failed('malformed_multipart')

  const wav = wavOf(50_000)
  for (const cut of [1, 11, 43, 44, 45, 49_999]) {
    const { path, connect, failed } = await trial()
    const connection = connect()
    await connection.send(head('PUT', path, { 'content-length': wav.length }), wav.subarray(0, cut))
    connection.socket.end()
    const { status, headers } = await connection.answer()
    t.match({ status, type: headers.get('content-type') }, { status: 400, type: 'application/problem+json' }, `a file cut at ${cut}`)
    await failed('body_incomplete')
  }
})

t.test('who sends more than it declared has sent what it declared', async t => {
  const { service, trial } = await startTrials(t)
  const wav = wavOf(50_000)
  const { path, connect, show } = await trial()
  const connection = connect()
  await connection.send(head('PUT', path, { 'content-length': 30_000 }), wav)
  const { status } = await connection.answer()
  t.ok(status === 200 || status === 400, 'the rest is no request, which may be told first')
  t.equal(await connection.closed, 'end')
  await until(async () => (await show()).status === 'stored')
  t.match(await show(), { file_size: 30_000, failure: null })
  t.equal((await service.files()).length, 1)
  t.equal((await service.call('GET', '/ping')).body, 'pong')
})

t.test('malformed chunks and a length that is none are refused', async t => {
  const { trial } = await startTrials(t)
  const wav = wavOf(50_000)
  for (const [title, rest] of [
    ['a size that is no number', 'zz\r\n'],
    ['a chunk longer than its size', Buffer.concat([Buffer.from('5\r\n'), wav.subarray(0, 100)])],
    ['a negative size', '-5\r\n'],
    ['a size beyond all numbers', 'fffffffffffffffffff\r\n']
  ] as const) {
    const { path, connect, failed } = await trial()
    const connection = connect()
    await connection.send(head('PUT', path, { 'transfer-encoding': 'chunked' }), chunk(wav.subarray(0, 30_000)), rest)
    t.equal((await connection.answer()).status, 400, title)
    await connection.closed
    await failed('body_incomplete')
  }
  for (const headers of [{ 'content-length': 'many' }, { 'content-length': '-1' }, { 'content-length': '5', 'transfer-encoding': 'chunked' }]) {
    const { path, connect, show } = await trial()
    const connection = connect()
    await connection.send(head('PUT', path, headers), 'RIFF')
    t.equal((await connection.answer()).status, 400, JSON.stringify(headers))
    await connection.closed
    t.match(await show(), { status: 'pending' })
  }
})

t.test('who went away after the last byte, without waiting for the answer, has left a message', async t => {
  const { service, trial } = await startTrials(t)
  const wav = wavOf(900_000)
  let stored = 0
  for (const [headers, body] of [
    [{ 'content-length': wav.length }, wav],
    [{ 'transfer-encoding': 'chunked' }, Buffer.concat([chunk(wav), Buffer.from('0\r\n\r\n')])],
    [{ 'content-type': FORM, 'content-length': formOf(wav).length }, formOf(wav)]
  ] as const) {
    for (const leave of ['destroy', 'end'] as const) {
      const { path, connect, show } = await trial()
      const connection = connect()
      await connection.send(head('POST', path, headers), body)
      connection.socket[leave]()
      await connection.closed
      await until(async () => { const { status, failure } = await show(); return status === 'stored' || failure !== null })
      t.match(await show(), { status: 'stored', file_size: wav.length, failure: null }, leave)
      t.equal((await service.files()).length, ++stored)
    }
  }
})

t.test('a silent sender is cut off', async t => {
  const { trial } = await startTrials(t, { UPLOAD_IDLE_TIMEOUT: '1' })
  const wav = wavOf(600_000)
  // All at once, since each of them waits.
  const silent = await Promise.all(([
    ['after the headers', { 'content-length': wav.length }, wav.subarray(0, 0)],
    ['in the middle', { 'content-length': wav.length }, wav.subarray(0, 400_000)],
    ['in the middle of a small one', { 'content-length': 60_000 }, wav.subarray(0, 30_000)],
    ['in chunks', { 'transfer-encoding': 'chunked' }, chunk(wav.subarray(0, 400_000))],
    ['before the last chunk', { 'transfer-encoding': 'chunked' }, chunk(wav)],
    ['before the first part', { 'content-type': FORM, 'content-length': 300_000 }, formOf(wav).subarray(0, 10)],
    ['within a form', { 'content-type': FORM, 'content-length': formOf(wav).length }, formOf(wav).subarray(0, 400_000)],
    ['within the last boundary', { 'content-type': FORM, 'content-length': formOf(wav).length }, formOf(wav).subarray(0, -1)]
  ] as const).map(async ([title, headers, body]) => {
    const { path, connect, failed } = await trial()
    const connection = connect()
    await connection.send(head('POST', path, headers), body)
    return { title, connection, failed }
  }))
  for (const { title, connection } of silent) {
    const { status, body } = await connection.answer()
    t.match({ status, body: JSON.parse(body) }, { status: 408, body: { code: 'sender_too_slow' } }, title)
    connection.socket.destroy()
    await connection.closed
  }
  for (const { failed } of silent) await failed('sender_too_slow')
})

t.test('an early refusal reaches a sender that goes on sending, and then the connection ends', async t => {
  const { service, trial } = await startTrials(t)
  const large = wavOf(LARGE_BYTES)
  const junk = Buffer.alloc(LARGE_BYTES, 'x')
  for (const [title, status, code, headers, body] of [
    ['a length that is too much', 413, 'upload_too_large', { 'content-length': LARGE_BYTES }, large],
    ['too many chunks', 413, 'upload_too_large', { 'transfer-encoding': 'chunked' }, Buffer.concat([chunk(large), Buffer.from('0\r\n\r\n')])],
    ['a form that is too large', 413, 'upload_too_large', { 'content-type': FORM, 'content-length': formOf(large).length }, formOf(large)],
    ['a part that is too large, in chunks', 413, 'upload_too_large', { 'content-type': FORM, 'transfer-encoding': 'chunked' }, Buffer.concat([chunk(formOf(large)), Buffer.from('0\r\n\r\n')])],
    ['a form with too much around its file', 413, 'upload_too_large', { 'content-type': FORM, 'transfer-encoding': 'chunked' }, Buffer.concat([chunk(formOf(large, 'other')), Buffer.from('0\r\n\r\n')])],
    ['no audio, in chunks', 415, 'unsupported_audio', { 'transfer-encoding': 'chunked' }, Buffer.concat([chunk(junk), Buffer.from('0\r\n\r\n')])],
    ['no audio in a form', 415, 'unsupported_audio', { 'content-type': FORM, 'transfer-encoding': 'chunked' }, Buffer.concat([chunk(formOf(junk)), Buffer.from('0\r\n\r\n')])],
    ['another type', 415, 'unsupported_media_type', { 'content-type': 'audio/mpeg', 'content-length': LARGE_BYTES }, large]
  ] as const) {
    const { path, connect, failed } = await trial()
    const connection = connect()
    await connection.send(head('POST', path, headers), body)
    const answer = await connection.answer()
    t.match({ status: answer.status, body: JSON.parse(answer.body) }, { status, body: { code } }, title)
    t.equal(answer.headers.get('connection'), 'close', title)
    t.equal(await connection.closed, 'end', `${title}: the connection ends in good order`)
    await failed(code)
  }
  t.equal((await service.call('GET', '/ping')).body, 'pong')
})

t.test('a refusal is answered at the first byte that shows it, before the rest has come', async t => {
  const { trial } = await startTrials(t)
  const part = formOf(Buffer.alloc(0))
  for (const [title, headers, body, code] of [
    ['in a body', { 'content-length': 900_000 }, 'RIFX', 'unsupported_audio'],
    ['in a small body', { 'content-length': 900 }, 'RIFX', 'unsupported_audio'],
    ['in chunks', { 'transfer-encoding': 'chunked' }, chunk(Buffer.from('OggS')), 'unsupported_audio'],
    // A part may be the beginning of its end for as many bytes as a boundary has.
    ['in a form', { 'content-type': FORM, 'content-length': 900_000 }, Buffer.concat([part.subarray(0, part.indexOf('\r\n\r\n') + 4), Buffer.alloc(40, 'x')]), 'unsupported_audio'],
    ['in the type of a part', { 'content-type': FORM, 'content-length': 900_000 }, part.toString().replace('audio/wav', 'audio/ogg').split('--simple boundary--')[0] ?? '', 'unsupported_media_type'],
    ['in a length', { 'content-length': MAX_BYTES + 1 }, '', 'upload_too_large'],
    ['in a length, of a sender that waits to be told to go on', { 'content-length': MAX_BYTES + 1, expect: '100-continue' }, '', 'upload_too_large']
  ] as const) {
    const { path, connect, failed } = await trial()
    const connection = connect()
    await connection.send(head('POST', path, headers), body)
    let answer = await connection.answer()
    if (answer.status === 100) answer = await connection.answer()
    t.match({ status: answer.status, body: JSON.parse(answer.body) }, { status: code === 'upload_too_large' ? 413 : 415, body: { code } }, title)
    connection.socket.end()
    await connection.closed
    await failed(code)
  }
})

t.test('a small body that was refused does not cost the connection, however often, and what is behind it is served', async t => {
  const { service, trial } = await startTrials(t)
  const warnings: Error[] = []
  const onWarning = (warning: Error): void => { warnings.push(warning) }
  process.on('warning', onWarning)
  t.teardown(() => { process.off('warning', onWarning) })
  const { path, connect, failed } = await trial()
  const connection = connect()
  for (let turn = 0; turn < 15; turn++) {
    await connection.send(head('PUT', path, { 'content-length': 60_000 }), 'no audio')
    t.equal((await connection.answer()).status, 415)
    // The rest comes in pieces, with the service's turns of reading between them.
    for (let piece = 0; piece < 3; piece++) {
      await connection.send(Buffer.alloc(18_000, 'x'))
      await service.call('GET', '/ping')
    }
    await connection.send(Buffer.alloc(60_000 - 3 * 18_000 - 'no audio'.length, 'x'))
    // A refusal with the next request right behind it.
    await connection.send(head('PUT', path, { 'content-length': 8 }), 'no audio', head('GET', '/ping'))
    t.equal((await connection.answer()).status, 415)
    t.equal((await connection.answer()).body, 'pong')
  }
  connection.socket.end()
  await failed('unsupported_audio')
  t.strictSame(warnings, [], 'nothing leaks on the connection')
})

t.test('two uploads one behind the other on a connection are both stored, and answered in order', async t => {
  const { service, trial } = await startTrials(t)
  const [one, other] = [await trial(), await trial()]
  const connection = one.connect()
  await connection.send(head('PUT', one.path, { 'content-length': 300_000 }), wavOf(300_000), head('PUT', other.path, { 'content-length': 20_000 }), wavOf(20_000))
  for (const [{ id, show }, bytes] of [[one, 300_000], [other, 20_000]] as const) {
    const { status, body } = await connection.answer()
    t.match({ status, body: JSON.parse(body) }, { status: 200, body: { id, file_size: bytes } })
    t.match(await show(), { status: 'stored', file_size: bytes })
  }
  t.equal((await service.files()).length, 2)
})

t.test('what is sent behind an upload whose refusal ends the connection is not processed', async t => {
  const { service, trial } = await startTrials(t)
  const [refused, behind] = [await trial(), await trial()]
  const connection = refused.connect()
  await connection.send(
    head('PUT', refused.path, { 'content-length': LARGE_BYTES }), Buffer.alloc(LARGE_BYTES, head('DELETE', '/ping')),
    head('PUT', behind.path, { 'content-length': 20_000 }), wavOf(20_000)
  )
  t.equal((await connection.answer()).status, 413)
  await connection.closed
  await refused.failed('upload_too_large')
  t.match(await behind.show(), { status: 'pending', failure: null })
  t.notOk(service.log.some(line => line.includes('"DELETE"') && line.includes('/ping')), 'no byte of the body was read as a request')
})

t.test('a sender that waits to be told to go on is told so', async t => {
  const { service, trial } = await startTrials(t)
  const { path, connect, show } = await trial()
  const connection = connect()
  await connection.send(head('PUT', path, { 'content-length': 20_000, expect: '100-continue' }))
  t.equal((await connection.answer()).status, 100)
  await connection.send(wavOf(20_000))
  t.equal((await connection.answer()).status, 200)
  t.match(await show(), { status: 'stored', file_size: 20_000 })
  t.equal((await service.files()).length, 1)
})

t.test('a voicemail deleted while it is uploaded is gone: the upload ends in 404 and leaves nothing', async t => {
  const { service, trial } = await startTrials(t)
  const wav = wavOf(600_000)
  const [{ id: accountId }] = (await service.call('GET', '/accounts')).body
  for (const [headers, body] of [
    [{ 'content-length': wav.length }, wav],
    [{ 'transfer-encoding': 'chunked' }, chunk(wav)],
    [{ 'content-type': FORM, 'content-length': formOf(wav).length }, formOf(wav)]
  ] as const) {
    const { id, path, connect, begun } = await trial()
    const connection = connect()
    await connection.send(head('POST', path, headers), body.subarray(0, 400_000))
    await begun()
    t.match(await service.call('DELETE', `/accounts/${accountId}/voicemails/${id}`), { status: 200, body: { id, deleted: true } })
    const answer = await connection.answer()
    t.match({ status: answer.status, body: JSON.parse(answer.body) }, { status: 404, body: { code: 'not_found' } })
    t.strictSame(await service.files(), [], 'nothing is left once it is answered')
    connection.socket.destroy()
    for (const method of ['GET', 'DELETE']) t.equal((await service.call(method, `/accounts/${accountId}/voicemails/${id}`)).status, 404, method)
    t.equal((await fetch(service.url + path, { method: 'PUT', body: wav })).status, 404)
    t.strictSame(await service.files(), [])
  }
})

t.test('a slot takes one voicemail, however many come at once', async t => {
  const { service, trial } = await startTrials(t)
  const one = wavOf(600_000)
  const { path, connect, begun, show } = await trial()
  const first = connect()
  await first.send(head('PUT', path, { 'content-length': one.length }), one.subarray(0, 400_000))
  await begun()
  const second = connect()
  await second.send(head('PUT', path, { 'content-length': 20_000 }), wavOf(20_000))
  const refused = await second.answer()
  t.match({ status: refused.status, body: JSON.parse(refused.body) }, { status: 409, body: { code: 'upload_in_progress' } })
  t.match(await show(), { status: 'pending', failure: null }, 'the one under way is not disturbed')
  await first.send(one.subarray(400_000))
  t.equal((await first.answer()).status, 200)
  t.match(await show(), { status: 'stored', file_size: one.length, failure: null })
  t.equal((await service.files()).length, 1)

  // None has begun before the others: one wins, the others are told so, or were the same.
  const slot = await trial()
  const rivals = [one, one, wavOf(20_000), wavOf(30_000)].map(bytes => ({ bytes, connection: slot.connect() }))
  await Promise.all(rivals.map(async ({ bytes, connection }) => { await connection.send(head('PUT', slot.path, { 'content-length': bytes.length }), bytes) }))
  const answers = await Promise.all(rivals.map(async ({ bytes, connection }) => ({ bytes, status: (await connection.answer()).status })))
  const winners = answers.filter(({ status }) => status === 200)
  t.ok(winners.length > 0)
  t.strictSame(answers.filter(({ status }) => status !== 200).map(({ status }) => status), Array.from({ length: 4 - winners.length }, () => 409))
  for (const { bytes } of winners) t.match(await slot.show(), { status: 'stored', file_size: bytes.length, failure: null })
  t.equal((await service.files()).length, 2)
})

t.test('an upload that began in time may end after its URL has', async t => {
  let now = Date.now()
  const { trial } = await startTrials(t, { UPLOAD_URL_TTL: '60' }, () => now)
  const wav = wavOf(600_000)
  const { path, connect, begun, show } = await trial()
  const connection = connect()
  await connection.send(head('PUT', path, { 'content-length': wav.length }), wav.subarray(0, 400_000))
  await begun()
  now += 3_600_000
  await connection.send(wav.subarray(400_000))
  t.equal((await connection.answer()).status, 200)
  t.match(await show(), { status: 'stored', file_size: wav.length })
})

t.test('who never stops sending after the answer is left alone at last', async t => {
  const app = fastify()
  drainUnreadBodies(app, 50)
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, _payload, done) => { done(null) })
  app.post('/', async (_request, reply) => await reply.code(413).send('too large'))
  const url = await app.listen()
  t.teardown(async () => { await app.close() })
  const { socket, send, answer, closed } = connectTo(t, url)
  await send(head('POST', '/', { 'transfer-encoding': 'chunked' }))
  const piece = chunk(Buffer.alloc(10_000))
  const sending = (async () => { while (!socket.destroyed && socket.writable) await send(piece) })()
  const { status, body } = await answer()
  t.strictSame({ status, body }, { status: 413, body: 'too large' }, 'it has been told')
  await closed
  await sending
})

t.test('no signed path is in the log, whatever went wrong', async t => {
  t.ok(logs.flat().length > 100)
  t.strictSame(logs.flat().filter(line => line.includes('signature=')), [])
})

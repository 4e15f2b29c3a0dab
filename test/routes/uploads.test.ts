import { readdir } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { v7 as uuidv7 } from 'uuid'
import t from 'tap'
import { createSignedUrls } from '../../src/domain/signed-url.js'
import { DURATIONS, sample, startService, typeOf, wavOf, type Json, type Service } from '../helper.js'

const MAX_BYTES = 400_000
const OK = Object.keys(DURATIONS)
const BAD = await readdir(new URL('../fixtures/samples/bad', import.meta.url))
const WAYS = ['PUT', 'POST', 'form'] as const
type Way = typeof WAYS[number]
interface Answer { status: number, headers: Headers, body: Json }

/** Uploads in one of the three ways that there are; without a type, none is declared. */
async function upload (url: string, way: Way, bytes: Uint8Array, type?: string, headers: Record<string, string> = {}): Promise<Answer> {
  const response = await fetch(url, way === 'form'
    ? { method: 'POST', headers: { 'content-type': 'multipart/form-data; boundary=xyz', ...headers }, body: form(bytes, type) }
    : { method: way, headers: { ...type !== undefined && { 'content-type': type }, ...headers }, body: bytes })
  return { status: response.status, headers: response.headers, body: await response.json() }
}

/** The same without Content-Length. */
async function uploadChunked (url: string, way: Way, bytes: Uint8Array): Promise<Answer> {
  const body = way === 'form' ? form(bytes, undefined) : bytes
  const stream = new ReadableStream<Uint8Array>({
    start: controller => {
      for (let at = 0; at < body.length; at += 50_000) controller.enqueue(body.subarray(at, at + 50_000))
      controller.close()
    }
  })
  const headers = { ...way === 'form' && { 'content-type': 'multipart/form-data; boundary=xyz' } }
  const response = await fetch(url, { method: way === 'form' ? 'POST' : way, headers, body: stream, duplex: 'half' })
  return { status: response.status, headers: response.headers, body: await response.json() }
}

function form (bytes: Uint8Array, type: string | undefined, { before = '', after = '' } = {}): Buffer {
  const declared = type === undefined ? '' : `Content-Type: ${type}\r\n`
  return Buffer.concat([
    Buffer.from(`${before}--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n${declared}\r\n`),
    bytes,
    Buffer.from(`\r\n${after}--xyz--\r\n`)
  ])
}

async function show (service: Service, accountId: number, id: string): Promise<Json> {
  return (await service.call('GET', `/accounts/${accountId}/voicemails/${id}`)).body
}

t.test('every kind of recording is taken in every way, and given back byte for byte', async t => {
  const service = await startService(t)
  const { id: accountId } = await service.addUser()
  let stored = 0
  for (const name of OK) {
    const bytes = await sample(`ok/${name}`)
    for (const way of WAYS) {
      const slot = await service.openSlot(accountId, typeOf(name))
      const { status, body } = await upload(slot.uploadUrl, way, bytes, typeOf(name))
      t.match({ status, body }, {
        status: 200,
        body: { id: slot.id, status: 'stored', content_type: typeOf(name), file_size: bytes.length, failure: null, sha256: /^[0-9a-f]{64}$/ }
      }, `${name} by ${way}`)
      t.ok(Math.abs(body.duration - (DURATIONS[name] ?? NaN)) <= 0.001, `${name} by ${way} lasts ${body.duration} s`)
      const download = await fetch(body.download_url)
      t.ok(bytes.equals(Buffer.from(await download.arrayBuffer())), `${name} by ${way} comes back as it was`)
      t.match(await show(service, accountId, slot.id), { file_size: bytes.length, duration: body.duration, uploaded_at: body.uploaded_at, sha256: body.sha256, status: 'stored' })
      t.equal((await service.files()).length, ++stored)
    }
  }
})

t.test('what is no such audio is refused in every way, is nowhere on the disk, and leaves the slot as it was', async t => {
  const service = await startService(t)
  const { id: accountId } = await service.addUser()
  const good = { 'audio/wav': await sample('ok/flexisip-voicemail-0.27s.wav'), 'audio/opus': await sample('ok/ffmpeg-libopus-16k.opus') }
  t.equal(BAD.length, 13)
  for (const name of BAD) {
    const type = typeOf(name)
    const slot = await service.openSlot(accountId, type)
    const bytes = await sample(`bad/${name}`)
    for (const [way, declared] of [...WAYS.map(way => [way, type] as const), ['PUT', 'application/octet-stream'], ['PUT', undefined]] as const) {
      const { status, headers, body } = await upload(slot.uploadUrl, way, bytes, declared)
      t.match({ status, body }, { status: 415, body: { status: 415, code: 'unsupported_audio', title: 'Unsupported Media Type', message: body.detail } }, `${name} by ${way}`)
      t.equal(headers.get('content-type'), 'application/problem+json')
      t.strictSame(await service.files(), [], `${name} by ${way}`)
      t.match(await show(service, accountId, slot.id), {
        status: 'pending',
        uploaded_at: null,
        file_size: null,
        duration: null,
        download_url: null,
        get_url: null,
        sha256: null,
        failure: { code: 'unsupported_audio', detail: body.detail, at: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/ }
      }, `${name} by ${way}`)
    }
    const retried = await upload(slot.uploadUrl, 'PUT', good[type], type)
    t.match(retried, { status: 200, body: { status: 'stored', failure: null } }, 'the slot is still usable')
    t.equal((await show(service, accountId, slot.id)).failure, null, 'success clears the failure')
    await service.call('DELETE', `/accounts/${accountId}/voicemails/${slot.id}`)
    t.strictSame(await service.files(), [], 'the file goes with the row')
  }
})

t.test('the declared type of body or part is that of the slot, an alias of it, or none', async t => {
  const service = await startService(t)
  const { id: accountId } = await service.addUser()
  const wav = await sample('ok/flexisip-voicemail-0.27s.wav')
  const opus = await sample('ok/ffmpeg-libopus-16k.opus')
  const slots = { wav: await service.openSlot(accountId), opus: await service.openSlot(accountId, 'audio/opus') }

  for (const [of, declared] of [
    ['wav', 'video/wav'], ['wav', 'audio/opus'], ['wav', 'audio/ogg'], ['wav', 'audio/mpeg'], ['wav', 'text/plain; a="audio/wav"'], ['wav', 'audio/wavy'],
    ['wav', 'multipart/mixed; boundary=xyz'], ['wav', 'nonsense'], ['wav', 'application/json'],
    ['opus', 'audio/wav'], ['opus', 'audio/ogg; codecs=vorbis'], ['opus', 'audio/ogg;codecs="vorbis"'], ['opus', 'AUDIO/OGG; CODECS=Vorbis'],
    ['opus', 'audio/ogg; codecs="opus, vorbis"'], ['opus', 'video/ogg'], ['opus', 'application/ogg']
  ] as const) {
    const bytes = of === 'wav' ? wav : opus
    for (const way of WAYS) {
      const { status, body } = await upload(slots[of].uploadUrl, way, bytes, declared)
      const expected = of === 'wav' ? 'audio/wav' : 'audio/opus'
      t.match({ status, body }, { status: 415, body: { code: 'unsupported_media_type', expected, found: declared } }, `${declared} for ${of} by ${way}`)
      t.strictSame(await service.files(), [])
      t.match(await show(service, accountId, slots[of].id), { status: 'pending', failure: { code: 'unsupported_media_type' } })
    }
  }

  for (const [of, declared] of [
    ['wav', 'audio/wav'], ['wav', 'audio/x-wav'], ['wav', 'audio/wave'], ['wav', 'audio/vnd.wave'], ['wav', 'Audio/X-WAV'], ['wav', 'audio/vnd.wave;codec=1'],
    ['wav', 'audio/wav; codecs=vorbis'], ['wav', 'audio/wav ; rate=8000; x="a;b"'], ['wav', 'application/octet-stream'], ['wav', 'APPLICATION/Octet-Stream; x=y'], ['wav', undefined], ['wav', ''],
    ['opus', 'audio/opus'], ['opus', 'audio/ogg'], ['opus', 'audio/ogg; codecs=opus'], ['opus', 'audio/ogg;codecs="opus"'], ['opus', 'AUDIO/Ogg; Codecs="Opus"'],
    ['opus', 'audio/opus; codecs=opus; rate=16000'], ['opus', 'application/octet-stream'], ['opus', undefined], ['opus', '']
  ] as const) {
    for (const way of WAYS) {
      const slot = await service.openSlot(accountId, of === 'wav' ? 'audio/wav' : 'audio/opus')
      const { status, body } = await upload(slot.uploadUrl, way, of === 'wav' ? wav : opus, declared)
      t.match({ status, body }, { status: 200, body: { status: 'stored', content_type: `audio/${of}` } }, `${declared ?? 'no type'} for ${of} by ${way}`)
    }
  }
})

t.test('the first part named file counts, wherever it stands', async t => {
  const service = await startService(t)
  const { id: accountId } = await service.addUser()
  const wav = await sample('ok/flexisip-voicemail-0.27s.wav')
  const send = async (url: string, body: Uint8Array, contentType = 'multipart/form-data; boundary=xyz'): Promise<Answer> => {
    const response = await fetch(url, { method: 'POST', headers: { 'content-type': contentType }, body })
    return { status: response.status, headers: response.headers, body: await response.json() }
  }
  const other = (name: string, text: string): string => `--xyz\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${text}\r\n`
  const noFilename = Buffer.concat([Buffer.from('--xyz\r\ncontent-disposition: form-data; name=file\r\n\r\n'), wav, Buffer.from('\r\n--xyz--')])
  for (const [title, body] of [
    ['others before and after', form(wav, 'audio/wav', { before: other('note', 'RIFF') + other('files', 'x'), after: other('more', 'x') })],
    ['a second file', form(wav, 'audio/wav', { after: other('file', 'another') })],
    ['preamble and epilogue', Buffer.concat([Buffer.from('preamble\r\n'), form(wav, 'audio/wav'), Buffer.from('epilogue')])],
    ['no filename', noFilename]
  ] as const) {
    const slot = await service.openSlot(accountId)
    t.match(await send(slot.uploadUrl, body), { status: 200, body: { file_size: wav.length } }, title)
  }
  const stored = (await service.files()).length

  const slot = await service.openSlot(accountId)
  for (const [title, status, code, body, contentType] of [
    ['no part of that name', 422, 'file_part_missing', Buffer.from(`${other('files', 'x')}--xyz--`)],
    ['no part at all', 422, 'file_part_missing', Buffer.from('--xyz--')],
    ['no boundary', 400, 'malformed_multipart', form(wav, 'audio/wav'), 'multipart/form-data'],
    ['another boundary', 400, 'malformed_multipart', form(wav, 'audio/wav'), 'multipart/form-data; boundary=abc'],
    ['no end', 400, 'malformed_multipart', form(wav, 'audio/wav').subarray(0, -4)],
    ['no end after another part', 400, 'malformed_multipart', form(wav, 'audio/wav', { after: other('more', 'x') }).subarray(0, -4)],
    ['nothing', 400, 'malformed_multipart', Buffer.alloc(0)],
    ['the second file is the good one', 415, 'unsupported_audio', form(wav, 'audio/wav', { before: other('file', 'another') })],
    ['a form put', 415, 'unsupported_media_type', form(wav, 'audio/wav'), undefined]
  ] as const) {
    const answer = title === 'a form put'
      ? await upload(slot.uploadUrl, 'PUT', body, 'multipart/form-data; boundary=xyz')
      : await send(slot.uploadUrl, body, contentType)
    t.match(answer, { status, body: { code, ...code === 'file_part_missing' && { errors: { file: [/./] } } } }, title)
    t.equal((await service.files()).length, stored, title)
    t.match(await show(service, accountId, slot.id), { status: 'pending', failure: { code, detail: answer.body.detail } }, title)
  }
})

t.test('a voicemail of exactly max_upload_size passes, and one byte more does not', async t => {
  const service = await startService(t, { settings: { MAX_UPLOAD_SIZE: String(MAX_BYTES) } })
  const { id: accountId } = await service.addUser()
  const fits = wavOf(MAX_BYTES)
  const over = wavOf(MAX_BYTES + 1)
  let stored = 0
  for (const way of WAYS) {
    for (const send of [upload, uploadChunked]) {
      const slot = await service.openSlot(accountId)
      const refused = await send(slot.uploadUrl, way, over)
      t.match(refused, { status: 413, body: { code: 'upload_too_large', expected: MAX_BYTES, found: Number } }, `${way} by ${send.name}`)
      t.ok(refused.body.found > MAX_BYTES)
      t.equal((await service.files()).length, stored, 'nothing on disk')
      t.match(await show(service, accountId, slot.id), { status: 'pending', failure: { code: 'upload_too_large' } })
      t.match(await send(slot.uploadUrl, way, fits), { status: 200, body: { file_size: MAX_BYTES } }, `${way} by ${send.name}`)
      t.equal((await service.files()).length, ++stored)
    }
  }

  const slot = await service.openSlot(accountId)
  const around = `--xyz\r\nContent-Disposition: form-data; name="note"\r\n\r\n${'x'.repeat(60_000)}\r\n`
  const sendForm = async (body: Buffer): Promise<{ status: number, body: Json }> => {
    const response = await fetch(slot.uploadUrl, { method: 'POST', headers: { 'content-type': 'multipart/form-data; boundary=xyz' }, body })
    return { status: response.status, body: await response.json() }
  }
  t.match(await sendForm(form(wavOf(MAX_BYTES + 70_000), 'audio/wav')), { status: 413, body: { code: 'upload_too_large' } }, 'far more than fits')
  t.match(await sendForm(form(fits, 'audio/wav', { before: around })), { status: 200 }, 'in a form the limit is that of the part')
})

t.test('after success the same bytes again are the same voicemail, and others are a conflict', async t => {
  const service = await startService(t, { settings: { MAX_UPLOAD_SIZE: String(MAX_BYTES) } })
  const { id: accountId } = await service.addUser()
  const slot = await service.openSlot(accountId)
  const wav = await sample('ok/alaw-8k.wav')
  const { body: first } = await upload(slot.uploadUrl, 'PUT', wav, 'audio/wav')
  const pathsOf = async (): Promise<string[]> => (await readdir(`${service.dataFolder}/audio`, { recursive: true })).sort()
  const paths = await pathsOf()

  for (const way of WAYS) {
    const { status, body: again } = await upload(slot.uploadUrl, way, wav, 'audio/wav')
    t.equal(status, 200, `again by ${way}`)
    t.strictSame({ ...again, get_url: null, download_url: null }, { ...first, get_url: null, download_url: null })
    t.ok(wav.equals(Buffer.from(await (await fetch(again.download_url)).arrayBuffer())))

    for (const other of [await sample('ok/ulaw-8k.wav'), await sample('bad/html-named.wav'), wav.subarray(0, -1), Buffer.alloc(0)]) {
      t.match(await upload(slot.uploadUrl, way, other, 'audio/wav'), { status: 409, body: { code: 'already_uploaded' } }, `${other.length} other bytes by ${way}`)
    }
    t.match(await upload(slot.uploadUrl, way, wavOf(MAX_BYTES + 1), 'audio/wav'), { status: 413, body: { code: 'upload_too_large' } }, 'size before state')
    t.match(await upload(slot.uploadUrl, way, wav, 'audio/mpeg'), { status: 415, body: { code: 'unsupported_media_type' } }, 'type before state')
    t.strictSame(await pathsOf(), paths)
    t.match(await show(service, accountId, slot.id), { status: 'stored', sha256: first.sha256, uploaded_at: first.uploaded_at, failure: null })
  }
})

t.test('refusals come in the order of the contract, whatever credentials are sent along', async t => {
  let now = Date.now()
  const service = await startService(t, { clock: () => now, settings: { MAX_UPLOAD_SIZE: String(MAX_BYTES), UPLOAD_URL_TTL: '60' } })
  const { id: accountId } = await service.addUser()
  const sign = (voicemailId: string, expiresAtMs: number): string =>
    service.url + createSignedUrls({ key: service.data.keys.signingKey, previousKeys: [], clock: () => now }).sign({ direction: 'upload', voicemailId, expiresAtMs })
  const credentials = [{}, { 'x-api-key': service.adminKey }, { 'x-api-key': 'nonsense', authorization: 'Bearer nonsense' }]
  const wav = await sample('ok/flexisip-voicemail-0.27s.wav')
  const large = wavOf(MAX_BYTES + 70_000)

  const deleted = await service.openSlot(accountId)
  await service.call('DELETE', `/accounts/${accountId}/voicemails/${deleted.id}`)
  const stored = await service.openSlot(accountId)
  const { body: { download_url: downloadUrl } } = await upload(stored.uploadUrl, 'PUT', wav, 'audio/wav', credentials[2])
  t.type(downloadUrl, 'string', 'bad credentials do not matter')
  const open = await service.openSlot(accountId)
  const flipped = (url: string): string => url.slice(0, -2) + (url.at(-2) === 'A' ? 'B' : 'A') + url.slice(-1)

  for (const headers of credentials) {
    for (const way of WAYS) {
      const refused = async (url: string, bytes: Uint8Array, type: string, status: number, code: string): Promise<void> => {
        t.match(await upload(url, way, bytes, type, headers), { status, body: { code } }, `${code} by ${way}`)
      }
      // The signature goes first: for a slot that is open, deleted, or never was; for the other direction; with any type and size.
      for (const url of [open.uploadUrl, deleted.uploadUrl, sign(uuidv7(), now - 5000), sign(open.id, now - 5000)].map(flipped)) {
        await refused(url, large, 'audio/mpeg', 403, 'invalid_signature')
      }
      await refused(downloadUrl.replace('/downloads/', '/uploads/'), wav, 'audio/wav', 403, 'invalid_signature')
      await refused(`${service.url}/uploads/nonsense`, wav, 'audio/wav', 403, 'invalid_signature')
      if (way !== 'form') await refused(flipped(open.uploadUrl), wav, 'nonsense', 403, 'invalid_signature')
      await refused(sign(uuidv7(), now - 5000), large, 'audio/mpeg', 410, 'url_expired')
      await refused(sign(deleted.id, now - 5000), large, 'audio/mpeg', 410, 'url_expired')
      await refused(deleted.uploadUrl, large, 'audio/mpeg', 404, 'not_found')
      await refused(sign(uuidv7(), now + 5000), large, 'audio/mpeg', 404, 'not_found')
      if (way !== 'form') {
        await refused(stored.uploadUrl, large, 'nonsense', 415, 'unsupported_media_type')
        await refused(stored.uploadUrl, large, 'audio/mpeg', 415, 'unsupported_media_type')
      }
      await refused(stored.uploadUrl, large, 'audio/wav', 413, 'upload_too_large')
      await refused(stored.uploadUrl, await sample('ok/ulaw-8k.wav'), 'audio/wav', 409, 'already_uploaded')
    }
  }
  t.equal((await service.files()).length, 1)
  t.match(await show(service, accountId, open.id), { status: 'pending', failure: null }, 'a bad signature says nothing of the slot')

  now += 59_000
  t.match(await upload(open.uploadUrl, 'PUT', await sample('bad/html-named.wav')), { status: 415 }, 'valid up to its last second')
  now += 1000
  const late = await upload(open.uploadUrl, 'PUT', wav, 'audio/wav')
  t.match(late, { status: 410, body: { code: 'url_expired', expected: String, found: String } })
  t.match(await upload(stored.uploadUrl, 'PUT', wav, 'audio/wav'), { status: 410 }, 'the same bytes again, too late')
  t.match(await upload(sign(stored.id, now + 60_000), 'PUT', wav, 'audio/wav'), { status: 200, body: { id: stored.id } }, 'signed anew')
  t.match(await show(service, accountId, open.id), { status: 'pending', failure: { code: 'unsupported_audio' } })
  t.equal((await service.files()).length, 1)
  t.notMatch(service.log.join(''), /signature=/, 'no signed path is in the log')
})

t.test('memory does not grow with the file: no more is read than the disk has taken, but for a few buffers', async t => {
  const bytes = wavOf(24 * 1024 * 1024)
  let readBytes = 0
  let takenBytes = 0
  let largestLead = 0
  let largestChunk = 0
  const service = await startService(t, {
    settings: { MAX_UPLOAD_SIZE: String(bytes.length) },
    meddle: ({ audioStore }) => {
      const { write } = audioStore
      audioStore.write = async (chunks, commit) => await write(slowly(chunks), commit)
    }
  })
  async function * slowly (chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      // Turns of the event loop in which everything would be read that may be.
      for (let turn = 0; turn < 10; turn++) await nextTurn()
      largestLead = Math.max(largestLead, reading.bytesRead - readBytes - takenBytes)
      largestChunk = Math.max(largestChunk, chunk.byteLength)
      takenBytes += chunk.byteLength
      yield chunk
    }
  }
  const sockets: Socket[] = []
  service.app.server.on('connection', socket => { sockets.push(socket) })
  let reading: { bytesRead: number } = { bytesRead: 0 }
  const { id: accountId } = await service.addUser()
  for (const way of WAYS) {
    const slot = await service.openSlot(accountId)
    takenBytes = 0
    // Whatever connection the client takes: all that the service has read since now is this upload.
    reading = { get bytesRead () { return sockets.reduce((sum, socket) => sum + socket.bytesRead, 0) } }
    readBytes = reading.bytesRead
    t.match(await upload(slot.uploadUrl, way, bytes, 'audio/wav'), { status: 200, body: { file_size: bytes.length } }, way)
    t.equal(takenBytes, bytes.length)
  }
  t.ok(largestChunk <= 256 * 1024, `the largest chunk had ${largestChunk} bytes`)
  t.ok(largestLead <= 1024 * 1024, `at most ${largestLead} bytes were read before they were wanted`)
  t.ok(largestLead > 0)
})

import { readdir, readlink, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import t from 'tap'
import { createSignedUrls } from '../../src/domain/signed-url.js'
import { sample, startService, wavOf, type Service, type ServiceOptions, type Testing } from '../helper.js'
import { connectTo, head, until } from '../wire/connection.js'

/** Above what is read at once, and far above what the operating system keeps for a connection. */
const STREAMED_BYTES = 600_000
const BIG_BYTES = 64_000_000

/** A stored voicemail. */
interface Stored { id: string, accountId: number, url: string, path: string, bytes: Buffer, sha256: string }

async function store (service: Service, bytes: Buffer, { contentType = 'audio/wav', sipFrom = 'sip:alice@sip.example.org' } = {}): Promise<Stored> {
  const { id: accountId } = await service.addUser()
  const { body: slot } = await service.call('POST', `/accounts/${accountId}/voicemails`, { sip_from: sipFrom, content_type: contentType })
  const answer = await fetch(slot.upload_url, { method: 'PUT', body: bytes })
  const { id, download_url: url, sha256 } = await answer.json() as Record<'id' | 'download_url' | 'sha256', string>
  return { id, accountId, url, path: new URL(url).pathname, bytes, sha256 }
}

interface Download { status: number, headers: Headers, bytes: Buffer }

async function get (url: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Download> {
  const response = await fetch(url, { method, headers: { 'accept-encoding': 'identity', ...headers } })
  return { status: response.status, headers: response.headers, bytes: Buffer.from(await response.arrayBuffer()) }
}

/** Files of the folder of audio that the service has open. */
async function openFiles ({ dataFolder, pid }: Service): Promise<string[]> {
  const targets = await Promise.all((await readdir(`/proc/${pid}/fd`)).map(async fd => await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')))
  return targets.filter(target => target.startsWith(join(dataFolder, 'audio')))
}

async function nothingOpen (t: { pass: (message: string) => unknown }, service: Service): Promise<void> {
  await until(async () => (await openFiles(service)).length === 0)
  t.pass('no file is left open')
}

async function startAt (t: Testing, now: () => number, options: ServiceOptions = {}): Promise<Service> {
  return await startService(t, { ...options, clock: now, settings: { MAX_UPLOAD_SIZE: String(BIG_BYTES), ...options.settings } })
}

t.test('a voicemail is served with what a player and a browser have to know', async t => {
  const now = Date.UTC(2025, 9, 9, 12, 59, 32, 500)
  const service = await startAt(t, () => now)
  for (const [contentType, file, servedAs, extension] of [
    ['audio/wav', 'flexisip-voicemail-8.6s.wav', 'audio/wav', 'wav'],
    ['audio/opus', 'speech-24k.opus', 'audio/ogg; codecs=opus', 'opus']
  ] as const) {
    const { url, bytes, sha256, accountId, id } = await store(service, await sample(`ok/${file}`), { contentType })
    const expected = {
      'content-type': servedAs,
      'content-length': String(bytes.length),
      etag: `"${sha256}"`,
      'last-modified': 'Thu, 09 Oct 2025 12:59:32 GMT',
      'accept-ranges': 'bytes',
      'cache-control': 'private',
      'x-content-type-options': 'nosniff',
      'content-security-policy': "default-src 'none'; media-src 'self'; frame-ancestors 'none'",
      'content-disposition': `inline; filename="alice@sip.example.org 2025-10-09 12.59.32.${extension}"`
    }
    for (const method of ['GET', 'HEAD']) {
      const { status, headers, bytes: found } = await get(url, {}, method)
      t.equal(status, 200)
      t.match(Object.fromEntries(headers), expected, `${method} ${file}`)
      t.ok(found.equals(method === 'GET' ? bytes : Buffer.alloc(0)))
    }
    const saved = await get(`${url}?download=1`)
    t.equal(saved.headers.get('content-disposition'), expected['content-disposition'].replace('inline', 'attachment'))
    t.equal((await get(`${url}?download=0`)).headers.get('content-disposition'), expected['content-disposition'])
    t.match((await service.call('GET', `/accounts/${accountId}/voicemails/${id}`)).body, { content_type: contentType, read_at: null, get_url: url, download_url: url }, 'listening alone changes nothing')
  }
  await nothingOpen(t, service)
})

t.test('one range is served as a part, in all three forms', async t => {
  const service = await startAt(t, Date.now)
  for (const size of [1000, STREAMED_BYTES + 1_000_000]) {
    const { url, bytes } = await store(service, wavOf(size))
    for (const [range, first, last] of [
      ['bytes=0-1', 0, 1], ['bytes=0-0', 0, 0], ['bytes=0-', 0, size - 1], ['bytes=44-99', 44, 99], ['bytes=500-', 500, size - 1],
      ['bytes=-1', size - 1, size - 1], ['bytes=-100', size - 100, size - 1], [`bytes=-${size + 5}`, 0, size - 1], [`bytes=1-${size + 5}`, 1, size - 1],
      [`bytes=${size - 1}-`, size - 1, size - 1], [`bytes=7-${size - 8}`, 7, size - 8], ['BYTES=0-1', 0, 1]
    ] as const) {
      const { status, headers, bytes: part } = await get(url, { range })
      t.match({ status, range: headers.get('content-range'), length: headers.get('content-length') },
        { status: 206, range: `bytes ${first}-${last}/${size}`, length: String(last - first + 1) }, `${range} of ${size}`)
      t.ok(part.equals(bytes.subarray(first, last + 1)), range)
      t.match(Object.fromEntries(headers), { etag: /^"[0-9a-f]{64}"$/, 'accept-ranges': 'bytes', 'content-type': 'audio/wav', 'last-modified': / GMT$/, 'cache-control': 'private' })
    }
    for (const range of [`bytes=${size}-`, `bytes=${size}-${size + 5}`, 'bytes=-0', `bytes=${'9'.repeat(30)}-`]) {
      const { status, headers, bytes: body } = await get(url, { range })
      t.match({ status, range: headers.get('content-range'), type: headers.get('content-type') },
        { status: 416, range: `bytes */${size}`, type: 'application/problem+json' }, `${range} of ${size}`)
      t.match(JSON.parse(body.toString()), { code: 'range_not_satisfiable', expected: `bytes of 0-${size - 1}`, found: range })
      t.equal(headers.get('content-disposition'), null, 'a problem is no recording')
    }
    for (const range of ['bytes=0-1,5-9', 'bytes=0-1, -1', 'bytes=5-1', 'bytes=a-b', 'bytes=', 'bytes', 'seconds=0-1', 'bytes=0-1-2', 'bytes=-']) {
      const { status, headers, bytes: whole } = await get(url, { range })
      t.match({ status, range: headers.get('content-range') }, { status: 200, range: null }, range)
      t.ok(whole.equals(bytes))
    }
    t.match(await get(url, { range: 'bytes=0-1' }, 'HEAD'), { status: 200 }, 'a range is for GET alone')
  }
  await nothingOpen(t, service)
})

t.test('conditions are those of RFC 9110', async t => {
  const now = Date.UTC(2025, 9, 9, 12, 59, 32, 500)
  const service = await startAt(t, () => now)
  const { url, bytes, sha256 } = await store(service, wavOf(1000))
  const etag = `"${sha256}"`
  const [before, same, after] = ['Thu, 09 Oct 2025 12:59:31 GMT', 'Thu, 09 Oct 2025 12:59:32 GMT', 'Thu, 09 Oct 2025 12:59:33 GMT']
  for (const [headers, status] of [
    [{ 'if-none-match': etag }, 304],
    [{ 'if-none-match': `W/${etag}` }, 304],
    [{ 'if-none-match': `"other", ${etag}` }, 304],
    [{ 'if-none-match': '*' }, 304],
    [{ 'if-none-match': '"other"' }, 200],
    [{ 'if-none-match': '"other"', 'if-modified-since': same }, 200],
    [{ 'if-modified-since': same }, 304],
    [{ 'if-modified-since': after }, 304],
    [{ 'if-modified-since': before }, 200],
    [{ 'if-modified-since': 'yesterday' }, 200],
    [{ 'if-match': etag }, 200],
    [{ 'if-match': '*' }, 200],
    [{ 'if-match': '"other"' }, 412],
    [{ 'if-match': `W/${etag}` }, 412],
    [{ 'if-unmodified-since': same }, 200],
    [{ 'if-unmodified-since': before }, 412],
    [{ range: 'bytes=0-1', 'if-none-match': etag }, 304],
    [{ range: 'bytes=0-1', 'if-match': '"other"' }, 412],
    [{ range: 'bytes=5000-', 'if-none-match': etag }, 304],
    [{ range: 'bytes=0-1', 'if-range': etag }, 206],
    [{ range: 'bytes=0-1', 'if-range': same }, 206],
    [{ range: 'bytes=0-1', 'if-range': '"other"' }, 200],
    [{ range: 'bytes=0-1', 'if-range': `W/${etag}` }, 200],
    [{ range: 'bytes=0-1', 'if-range': after }, 200],
    [{ range: 'bytes=5000-', 'if-range': '"other"' }, 200],
    [{ range: 'bytes=5000-', 'if-range': etag }, 416]
  ] as const) {
    const asked = Object.fromEntries(Object.entries(headers))
    for (const method of ['GET', 'HEAD']) {
      const isRanged = status === 206 || status === 416
      const wanted = method === 'HEAD' && isRanged ? 200 : status
      const { status: found, headers: told, bytes: body } = await get(url, asked, method)
      t.equal(found, wanted, `${method} ${JSON.stringify(headers)}`)
      if (found === 304) {
        t.match(Object.fromEntries(told), { etag, 'last-modified': same, 'cache-control': 'private' })
        t.strictSame([told.get('content-type'), told.get('content-disposition'), body.length], [null, null, 0])
      }
      if (found === 412) {
        t.equal(told.get('content-type'), 'application/problem+json')
        t.equal(told.get('content-disposition'), null, 'a problem is no recording')
        if (method === 'GET') t.match(JSON.parse(body.toString()), { code: 'precondition_failed' })
      }
      if (method === 'GET' && found === 200) t.ok(body.equals(bytes))
      if (method === 'GET' && found === 206) t.ok(body.equals(bytes.subarray(0, 2)))
    }
  }
  await nothingOpen(t, service)
})

t.test('the name of the file is a plain one, whoever called', async t => {
  const now = Date.UTC(2025, 9, 9, 12, 59, 32)
  const service = await startAt(t, () => now)
  const wav = wavOf(1000)
  for (const sipFrom of [
    'sip:sip.example.org', 'sips:bob@[2001:db8::1]:5061', 'sip:%22%3Cscript%3E%22@sip.example.org', 'sip:..%2F..%2Fetc%2Fpasswd@sip.example.org',
    'sip:+49(0)30-1234;phone-context=x@sip.example.org;user=phone', 'sip:a%0D%0ASet-Cookie%3Ax@sip.example.org', 'sip:%E2%82%AC@sip.example.org',
    `sip:${'x'.repeat(300)}@sip.example.org`, "sip:it's~me*@sip.example.org", 'sip:alice:secret@sip.example.org', 'bob@sip.example.org', 'sip:con@sip.example.org',
    'sip:bob&co=;?/x@sip.example.org;lr?subject=%22x'
  ]) {
    const { url } = await store(service, wav, { sipFrom })
    const { status, headers } = await get(`${url}?download=1`)
    t.equal(status, 200, sipFrom)
    const told = headers.get('content-disposition') ?? ''
    t.match(told, /^attachment; filename="[A-Za-z0-9@_+][A-Za-z0-9@._+-]{0,99} 2025-10-09 12\.59\.32\.wav"$/, `${sipFrom}: ${told}`)
    t.notMatch(told, /secret|\.\.\/|set-cookie:/i)
    t.equal(headers.get('set-cookie'), null)
  }
})

t.test('only a valid signature opens a download, and whatever credentials are sent along do not matter', async t => {
  let now = Date.now()
  const service = await startAt(t, () => now, { settings: { DOWNLOAD_URL_TTL: '60' } })
  const stored = await store(service, await sample('ok/flexisip-voicemail-0.27s.wav'))
  const deleted = await store(service, wavOf(1000))
  await service.call('DELETE', `/accounts/${deleted.accountId}/voicemails/${deleted.id}`)
  const pending = await service.openSlot(stored.accountId)
  const flipped = (url: string): string => url.slice(0, -2) + (url.at(-2) === 'A' ? 'B' : 'A') + url.slice(-1)
  for (const headers of [{}, { 'x-api-key': service.adminKey }, { 'x-api-key': 'nonsense', authorization: 'Bearer nonsense' }]) {
    for (const [url, status, code] of [
      [stored.url, 200, undefined],
      [stored.url.replace(service.url, `${service.url}/api`), 200, undefined],
      [flipped(stored.url), 403, 'invalid_signature'],
      [flipped(deleted.url), 403, 'invalid_signature'],
      [stored.url.replace(stored.id, deleted.id), 403, 'invalid_signature'],
      [pending.uploadUrl.replace('/uploads/', '/downloads/'), 403, 'invalid_signature'],
      [`${service.url}/downloads/${stored.id}`, 403, 'invalid_signature'],
      [deleted.url, 404, 'not_found']
    ] as const) {
      const { status: found, bytes } = await get(url, headers)
      t.equal(found, status, url)
      if (code !== undefined) t.match(JSON.parse(bytes.toString()), { code, status })
      t.equal((await get(url, headers, 'HEAD')).status, status)
    }
  }
  const { status, headers } = await get(stored.url, {}, 'POST')
  t.match({ status, allow: headers.get('allow') }, { status: 405, allow: /GET/ })

  // The moment of a URL is a whole second.
  now += 58_000
  t.equal((await get(stored.url)).status, 200, 'valid to its end')
  now += 2_000
  t.match(await get(stored.url), { status: 410 })
  t.match(JSON.parse((await get(deleted.url)).bytes.toString()), { code: 'url_expired' }, 'expired goes before gone')
  const again = await service.call('GET', `/accounts/${stored.accountId}/voicemails/${stored.id}`)
  t.equal((await get(again.body.download_url)).status, 200, 'a new URL is signed whenever it is asked for')
  t.notMatch(service.log.join(''), /signature=/, 'no signed path is in the log')
  await nothingOpen(t, service)
})

t.test('what was not uploaded yet, is gone, or was lost by the disk, is a 404 that says so', async t => {
  const service = await startAt(t, Date.now)
  const { id: accountId } = await service.addUser()
  const stored = await store(service, wavOf(1000))
  const slot = await service.openSlot(accountId)
  const { sign } = createSignedUrls({ key: service.data.keys.signingKey, previousKeys: [], clock: Date.now })
  const ofSlot = sign({ direction: 'download', voicemailId: slot.id, expiresAtMs: Date.now() + 60_000 })
  const early = await get(service.url + ofSlot)
  t.equal(early.status, 404, 'not uploaded yet')
  t.match(JSON.parse(early.bytes.toString()), { code: 'not_found' })

  const [name = ''] = await service.files()
  const path = join(service.dataFolder, 'audio', name.slice(0, 2), name)
  await unlink(path)
  for (const method of ['GET', 'HEAD']) t.equal((await get(stored.url, {}, method)).status, 404)
  const { headers, bytes } = await get(stored.url)
  t.match(JSON.parse(bytes.toString()), { status: 404, code: 'audio_lost' })
  t.equal(headers.get('content-type'), 'application/problem+json')
  t.strictSame([headers.get('etag'), headers.get('content-disposition')], [null, null], 'a problem is no recording')
  t.match((await service.call('GET', `/accounts/${stored.accountId}/voicemails/${stored.id}`)).body, { status: 'stored' })
  t.match(await service.call('DELETE', `/accounts/${stored.accountId}/voicemails/${stored.id}`), { status: 200 }, 'it can still be deleted')
  t.equal((await get(stored.url)).status, 404)
  await nothingOpen(t, service)
})

t.test('where nginx sends the bytes it is told which, and that only', async t => {
  const service = await startAt(t, Date.now, { settings: { X_ACCEL_PREFIX: '/protected-audio/' } })
  const { url, sha256 } = await store(service, wavOf(1000))
  const [name = ''] = await service.files()
  const about = {
    'content-type': 'audio/wav',
    etag: `"${sha256}"`,
    'last-modified': / GMT$/,
    'cache-control': 'private',
    'x-content-type-options': 'nosniff',
    'content-disposition': /^attachment; filename="alice@/
  }
  for (const [range, wanted] of [[{}, 200], [{ range: 'bytes=0-1' }, 206], [{ range: 'bytes=-5', 'if-range': `"${sha256}"` }, 206]] as const) {
    const { status, headers, bytes } = await get(`${url}?download=1`, range)
    t.match({ status, size: bytes.length }, { status: wanted, size: 0 })
    t.match(Object.fromEntries(headers), { ...about, 'x-accel-redirect': `/protected-audio/${name.slice(0, 2)}/${name}` })
  }
  for (const [method, asked, size] of [
    ['HEAD', {}, 0],
    ['GET', { 'if-match': '*' }, 1000],
    ['GET', { 'if-unmodified-since': new Date().toUTCString() }, 1000],
    ['GET', { range: 'bytes=5-2' }, 1000],
    ['GET', { range: 'bytes=0-1', 'if-range': '"other"' }, 1000],
    ['GET', { 'x-accel-failed': '1' }, 1000]
  ] as const) {
    const { status, headers, bytes } = await get(`${url}?download=1`, asked, method)
    t.match({ status, size: bytes.length, redirect: headers.get('x-accel-redirect'), length: headers.get('content-length') }, { status: 200, size, redirect: null, length: '1000' }, 'what nginx would answer in its own way')
    t.match(Object.fromEntries(headers), about)
  }
  t.match(await get(url, { range: 'bytes=1000-' }), { status: 416 })
  t.match(await get(url, { 'if-none-match': `"${sha256}"` }), { status: 304 })
  const { status, headers } = await get(url.slice(0, -3))
  t.match({ status, redirect: headers.get('x-accel-redirect') }, { status: 403, redirect: null })
  await nothingOpen(t, service)
})

t.test('a small file is read at once, a larger one streamed, and either is whole', async t => {
  const streamed: boolean[] = []
  const service = await startAt(t, Date.now, {
    meddle: ({ audioStore }) => {
      const { open } = audioStore
      audioStore.open = async name => {
        const file = await open(name)
        return file && {
          ...file,
          read: (first, last) => {
            const lent = file.read(first, last)
            streamed.push(lent.body instanceof Readable)
            if (lent.body instanceof Readable) t.ok(lent.body.readableHighWaterMark <= 1024 * 1024, 'memory does not grow with the file')
            return lent
          }
        }
      }
    }
  })
  for (const [size, isStreamed] of [[256 * 1024, false], [256 * 1024 + 1, true], [5_000_000, true]] as const) {
    const { url, bytes } = await store(service, wavOf(size))
    t.ok((await get(url)).bytes.equals(bytes), `${size} bytes`)
    t.equal(streamed.pop(), isStreamed)
  }
  await nothingOpen(t, service)
})

t.test('a listener that goes away in the middle leaves no file open', async t => {
  let opened = 0
  const service = await startAt(t, Date.now, {
    meddle: ({ audioStore }) => {
      const { open } = audioStore
      audioStore.open = async name => {
        const file = await open(name)
        opened++
        return file
      }
    }
  })
  const { path, url, id, accountId } = await store(service, wavOf(BIG_BYTES))
  for (const leave of ['destroy', 'resetAndDestroy', 'end'] as const) {
    for (const headers of [{}, { range: 'bytes=1000-' }]) {
      const { socket, send } = connectTo(t, service.url)
      await send(head('GET', path, headers))
      // It takes a little, and no more, so that the service cannot have sent the rest.
      await new Promise(resolve => { socket.once('data', resolve) })
      socket.pause()
      await until(async () => (await openFiles(service)).length === 1)
      socket[leave]()
      if (leave === 'end') socket.destroy()
      await nothingOpen(t, service)
    }
  }
  // One that is gone before the answer begins.
  const openedBefore = opened
  const hasty = connectTo(t, service.url)
  await hasty.send(head('GET', path))
  hasty.socket.destroy()
  await hasty.closed
  await until(async () => opened > openedBefore)
  await nothingOpen(t, service)

  // And one that listens while the voicemail is deleted hears it to its end.
  const response = await fetch(url)
  t.equal((await service.call('DELETE', `/accounts/${accountId}/voicemails/${id}`)).status, 200)
  t.strictSame(await service.files(), [])
  t.equal((await response.arrayBuffer()).byteLength, BIG_BYTES)
  t.equal((await get(url)).status, 404)
  await nothingOpen(t, service)
  t.notMatch(service.log.join(''), /signature=/, 'no signed path is in the log')
})

t.test('what is no request, sent while a download is under way, does not get into the audio', async t => {
  const service = await startAt(t, Date.now, { looksInside: true })
  const { path, bytes } = await store(service, wavOf(BIG_BYTES))
  const { socket, send, closed } = connectTo(t, service.url)
  socket.removeAllListeners('data')
  const received: Buffer[] = []
  await send(head('GET', path))
  await new Promise<void>(resolve => {
    socket.once('data', (piece: Buffer) => {
      received.push(piece)
      socket.pause()
      resolve()
    })
  })
  socket.on('data', (piece: Buffer) => { received.push(piece) })
  socket.pause()
  const refused = new Promise(resolve => { service.app.server.once('clientError', resolve) })
  await send('nonsense\r\n\r\n')
  await refused
  socket.resume()
  await closed
  const all = Buffer.concat(received)
  const body = all.subarray(all.indexOf('\r\n\r\n') + 4)
  t.ok(body.equals(bytes.subarray(0, body.length)), `${body.length} bytes, and every one of them audio`)
  await nothingOpen(t, service)
})

t.test('bytes that slow listeners have not taken yet are never those of another voicemail', async t => {
  const now = Date.UTC(2025, 9, 9)
  const service = await startAt(t, () => now)
  const stored = await Promise.all(Array.from({ length: 8 }, async (_none, n) => await store(service, wavOf((n % 2 === 0 ? 50_000 : STREAMED_BYTES) + n))))
  // Each asks for its own over and over, takes a piece, and lets others go first.
  await Promise.all(stored.map(async ({ url, bytes }, n) => {
    for (let round = 0; round < 6; round++) {
      const { body } = await fetch(url)
      const pieces: Uint8Array[] = []
      for await (const piece of body ?? []) {
        pieces.push(piece)
        await new Promise(resolve => { setImmediate(resolve) })
      }
      t.ok(Buffer.concat(pieces).equals(bytes), `voicemail ${n}, round ${round}`)
    }
  }))
  await nothingOpen(t, service)
})

import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { chmod, readdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import type { ClientHttp2Session, IncomingHttpHeaders } from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { nginxSite } from '../../src/commands/nginx-config.js'
import { readConfig } from '../../src/config.js'
import { makeCertificate } from '../certificates.js'
import { sample, wavOf, type Json, type Service } from '../helper.js'
import { startServer } from '../process.js'
import { until } from '../wire/connection.js'
import { freePort } from '../free-port.js'
import { startBehindNginx, startNginx, type Answer, type Nginx } from './nginx.js'

t.setTimeout(120_000)

const EXAMPLE = { PUBLIC_URL: 'https://voicemail.example.org', DATA_DIR: '/var/lib/voicemaild', X_ACCEL_PREFIX: '/protected-audio/' }
/** Each with nginx sending the audio, and without. */
const WAYS = [['by voicemaild', {}], ['by nginx', { X_ACCEL_PREFIX: '/protected-audio/' }]] as const

interface Stored { id: string, accountId: number, url: string, etag: string, lastModified: string, bytes: Buffer }

/** Uploads through nginx. */
async function store ({ service, nginx }: { service: Service, nginx: Nginx }, bytes: Buffer, contentType = 'audio/wav'): Promise<Stored> {
  const { id: accountId } = await service.addUser()
  const { path, id } = await service.openSlot(accountId, contentType)
  const answer = await nginx.ask(path, { method: 'PUT', body: bytes })
  if (answer.status !== 200) throw new Error(answer.bytes.toString())
  const { download_url: url, sha256, uploaded_at: at } = answer.json()
  return { id, accountId, url, etag: `"${sha256}"`, lastModified: new Date(at).toUTCString(), bytes }
}

async function nothingKept (t: { strictSame: (found: unknown, wanted: unknown, message: string) => unknown }, service: Service, accountId: number): Promise<void> {
  await until(async () => (await service.files()).length === 0)
  const { body } = await service.call('GET', `/accounts/${accountId}/voicemails`)
  t.strictSame(body.map(({ status }: Json) => status).filter((status: string) => status !== 'pending'), [], 'nothing is stored')
}

/** Each answer of a raw connection, by its status. */
const statuses = (heard: string): number[] => [...heard.matchAll(/HTTP\/1\.1 ([0-9]{3}) /g)].map(match => Number(match[1]))

t.test('deploy/nginx.conf is what the command prints for its example', async t => {
  t.equal(await readFile(new URL('../../deploy/nginx.conf', import.meta.url), 'utf8'), nginxSite(readConfig(EXAMPLE), {}))
})

t.test('the site goes by the settings, and what cannot be told to nginx is refused', async t => {
  const site = (settings: Record<string, string>, options = {}): string => nginxSite(readConfig({ ...EXAMPLE, ...settings }), options)
  t.match(site({ LISTEN: '/run/voicemaild/socket', TRUST_PROXY: 'true' }), /server unix:\/run\/voicemaild\/socket;[^]*server unix:/)
  t.match(site({ HOST: '::', PORT: '99' }), 'server [::1]:99;')
  t.match(site({ HOST: 'audio.example.org' }), 'server audio.example.org:8080;')
  t.match(site({ PUBLIC_URL: 'https://a.example:8443' }), /listen 8443 ssl http2;[^]*server_name a\.example;/)
  t.match(site({ UPLOAD_IDLE_TIMEOUT: '200' }), /send_timeout 410s;[^]*client_body_timeout 210s;/)
  t.match(site({ DATA_DIR: '/srv/my "data"' }), 'alias "/srv/my \\"data\\"/audio/";')
  t.match(site({}, { serverName: 'b.example', certificate: '/c.pem', certificateKey: '/k.pem' }), /server_name b\.example;\n {2}ssl_certificate \/c\.pem;\n {2}ssl_certificate_key \/k\.pem;/)
  t.notMatch(nginxSite(readConfig({ PUBLIC_URL: EXAMPLE.PUBLIC_URL }), {}), 'internal')
  t.throws(() => nginxSite(readConfig({}), {}), /--server-name/)
  const { certFile, keyFile } = await makeCertificate(t.testdir())
  t.throws(() => site({ TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile }), /^TLS_CERT_FILE: /)
  for (const [settings, sentence] of [
    [{ PORT: '0' }, /^PORT: /], [{ X_ACCEL_PREFIX: '/' }, /^X_ACCEL_PREFIX: /], [{ PUBLIC_URL: 'https://a.example/b' }, /^PUBLIC_URL: /], [{ DATA_DIR: '/srv/$HOME' }, /dollar/]
  ] as const) t.throws(() => site(settings), sentence)
})

for (const [way, settings] of WAYS) {
  t.test(`audio is sent ${way} with its headers, in parts, and under conditions`, async t => {
    const behind = await startBehindNginx(t, settings)
    const { nginx, service } = behind
    for (const [contentType, file, servedAs] of [['audio/wav', 'pcm16-16k.wav', 'audio/wav'], ['audio/opus', 'speech-24k.opus', 'audio/ogg; codecs=opus']] as const) {
      const { url, bytes, etag, lastModified } = await store(behind, await sample(`ok/${file}`), contentType)
      const size = bytes.length
      const about = {
        etag,
        'last-modified': lastModified,
        'content-type': servedAs,
        'accept-ranges': 'bytes',
        'cache-control': 'private',
        'content-disposition': /^inline; filename="alice@/,
        'x-content-type-options': 'nosniff',
        'content-security-policy': "default-src 'none'; media-src 'self'; frame-ancestors 'none'",
        'referrer-policy': 'no-referrer',
        'cross-origin-resource-policy': 'cross-origin'
      }
      const whole = { status: 200, headers: { ...about, 'content-length': String(size) }, bytes }
      const part = (first: number, last: number): object => ({
        status: 206, headers: { ...about, 'content-length': String(last - first + 1), 'content-range': `bytes ${first}-${last}/${size}` }, bytes: bytes.subarray(first, last + 1)
      })
      const notModified = { status: 304, headers: { etag }, bytes: Buffer.alloc(0) }
      const problem = (status: number, code: string): object => ({ status, headers: { 'content-type': /^application\/problem\+json/ }, code })
      const earlier = new Date(Date.parse(lastModified) - 1000).toUTCString()
      for (const [headers, wanted] of [
        [{}, whole],
        [{ range: 'bytes=0-1' }, part(0, 1)],
        [{ range: 'bytes=0-' }, part(0, size - 1)],
        [{ range: 'bytes=100-199' }, part(100, 199)],
        [{ range: 'bytes=-5' }, part(size - 5, size - 1)],
        [{ range: `bytes=100-${size * 2}` }, part(100, size - 1)],
        [{ range: 'bytes=100-99999999999999999999' }, part(100, size - 1)],
        [{ range: 'bytes=100-199, ' }, part(100, 199)],
        [{ range: 'bytes=0-1,5-6' }, whole],
        [{ range: 'bytes=5-2' }, whole],
        [{ range: 'bytes= 0-1' }, whole],
        [{ range: 'pages=1-2' }, whole],
        [{ range: `bytes=${size}-` }, problem(416, 'range_not_satisfiable')],
        [{ range: 'bytes=-0' }, problem(416, 'range_not_satisfiable')],
        [{ range: 'bytes=0-1', 'if-range': etag }, part(0, 1)],
        [{ range: 'bytes=0-1', 'if-range': lastModified }, part(0, 1)],
        [{ range: 'bytes=0-1', 'if-range': '"other"' }, whole],
        [{ range: 'bytes=0-1', 'if-range': `W/${etag}` }, whole],
        [{ range: 'bytes=0-1', 'if-range': earlier }, whole],
        [{ 'if-none-match': etag }, notModified],
        [{ 'if-none-match': `"x", W/${etag}` }, notModified],
        [{ 'if-none-match': '*' }, notModified],
        [{ 'if-none-match': '"other"' }, whole],
        [{ 'if-none-match': '"other"', 'if-modified-since': lastModified }, whole],
        [{ 'if-modified-since': lastModified }, notModified],
        [{ 'if-modified-since': earlier }, whole],
        [{ 'if-none-match': '"other"', range: 'bytes=0-1' }, part(0, 1)],
        [{ 'if-match': etag }, whole],
        [{ 'if-match': etag, range: 'bytes=0-1' }, part(0, 1)],
        [{ 'if-match': '"other"' }, problem(412, 'precondition_failed')],
        [{ 'if-unmodified-since': lastModified }, whole],
        [{ 'if-unmodified-since': earlier }, problem(412, 'precondition_failed')]
      ] as Array<[Record<string, string>, Answer & { code?: string }]>) {
        const answer = await nginx.ask(url, { headers })
        const title = JSON.stringify(headers)
        t.match({ status: answer.status, headers: answer.headers }, { status: wanted.status, headers: wanted.headers }, title)
        if (wanted.bytes !== undefined) t.ok(answer.bytes.equals(wanted.bytes), `bytes of ${title}`)
        if (wanted.code !== undefined) t.equal(answer.json().code, wanted.code)
        if (wanted.status === 416) t.equal(answer.headers['content-range'], `bytes */${size}`)
      }
      for (const headers of [{}, { range: 'bytes=0-1' }]) {
        const { status, headers: found, bytes: none } = await nginx.ask(url, { method: 'HEAD', headers })
        t.match({ status, headers: found, bytes: none.length }, { status: 200, headers: whole.headers, bytes: 0 }, 'HEAD knows no ranges')
      }
      t.match((await nginx.ask(`${url}?download=1`)).headers, { 'content-disposition': /^attachment; filename="alice@/ })
      t.match((await nginx.ask(url.replace('/downloads/', '/api/downloads/'))).bytes, bytes)
    }
    t.notMatch(await nginx.errors(), /\[(?:emerg|alert|crit|error|warn)\]/, 'nginx has nothing to complain of')
    t.match(service.log.some(line => line.includes('"status":206')), true)
  })

  t.test(`12.5 MB come back as they were sent, ${way}, and are whole though deleted under way`, async t => {
    const behind = await startBehindNginx(t, settings)
    const { nginx, service } = behind
    const { url, bytes, etag, accountId, id } = await store(behind, wavOf(12_500_000))
    t.ok((await nginx.ask(url)).bytes.equals(bytes))

    const session = await nginx.http2()
    const stream = session.request({ ':path': new URL(url).pathname })
    await once(stream, 'response')
    t.match(await service.call('DELETE', `/accounts/${accountId}/voicemails/${id}`), { status: 200 })
    const pieces: Buffer[] = []
    for await (const piece of stream) pieces.push(piece)
    t.ok(Buffer.concat(pieces).equals(bytes), 'whoever listens hears it to the end')
    for (const headers of [{}, { 'if-none-match': etag }, { range: 'bytes=0-1' }]) {
      const gone = await nginx.ask(url, { headers })
      t.match({ status: gone.status, code: gone.json().code }, { status: 404, code: 'not_found' }, JSON.stringify(headers))
    }
    t.strictSame(await service.files(), [])
  })
}

t.test('nginx workers read what is stored from then on, and no secret; what they cannot read is sent by voicemaild', async t => {
  const folder = t.testdir()
  const settings = { PORT: String(await freePort()), PUBLIC_URL: `https://localhost:${await freePort()}`, DATA_DIR: join(folder, 'data'), MIN_FREE_DISK: '0', ADMIN_API_KEY: 'a key of this test only, 32 and more'.replaceAll(/[ ,]/g, '-') }
  const call = async (url: string, path: string, body: object): Promise<Json> => await (await fetch(url + path, {
    method: 'POST', headers: { 'x-api-key': settings.ADMIN_API_KEY, 'content-type': 'application/json' }, body: JSON.stringify(body)
  })).json()
  const audio = await sample('ok/pcm16-16k.wav')
  const upload = async (url: string): Promise<string> => {
    const { upload_url: uploadUrl } = await call(url, '/accounts/1/voicemails', { sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' })
    const stored = await fetch(url + new URL(uploadUrl).pathname, { method: 'PUT', body: audio })
    return (await stored.json() as { download_url: string }).download_url
  }
  const modes = async (): Promise<Record<string, string>> => Object.fromEntries(await Promise.all((await readdir(settings.DATA_DIR, { recursive: true })).concat('.').map(async path => [path, ((await stat(join(settings.DATA_DIR, path))).mode & 0o777).toString(8)])))

  const before = await startServer(t, { cwd: folder, settings })
  await call(before.url, '/accounts', { sip_uri: 'sip:bob@sip.example.org' })
  const old = await upload(before.url)
  for (const [path, mode] of Object.entries(await modes())) t.match(mode, /^[67]00$/, `${path} is for its user alone`)
  await before.stop('SIGTERM')

  const withAccel = { ...settings, X_ACCEL_PREFIX: '/protected-audio/' }
  const { url } = await startServer(t, { cwd: folder, settings: withAccel })
  const nginx = await startNginx(t, withAccel, folder)
  const young = await upload(url)
  const errors = async (): Promise<number> => [...(await nginx.errors()).matchAll(/\[error\]|\[crit\]/g)].length
  t.ok((await nginx.ask(young)).bytes.equals(audio))
  t.equal(await errors(), 0, 'nginx reads it')
  t.ok((await nginx.ask(old)).bytes.equals(audio), 'one that was stored before')
  t.match((await nginx.ask(old, { headers: { range: 'bytes=10-19' } })), { status: 206, bytes: audio.subarray(10, 20) })
  if (process.getuid?.() === 0) t.ok(await errors() > 0, 'which nginx may not read')

  const found = await modes()
  t.equal(found['.'], '710')
  for (const [path, mode] of Object.entries(found)) {
    if (path === '.' || (await stat(join(settings.DATA_DIR, path))).isDirectory()) continue
    t.match(mode, path.startsWith('audio/') ? /^6[04]0$/ : '600', path)
  }
  t.match(found, { signing: undefined, audio: '750', incoming: '700', 'voicemaild.sqlite': '600', 'signing-key': '600' })
  for (const path of ['audio', ...(await readdir(join(settings.DATA_DIR, 'audio'), { recursive: true })).map(path => join('audio', path))]) {
    const full = join(settings.DATA_DIR, path)
    await chmod(full, (await stat(full)).mode | ((await stat(full)).isDirectory() ? 0o050 : 0o040))
  }
  const known = await errors()
  t.ok((await nginx.ask(old)).bytes.equals(audio))
  t.equal(await errors(), known, 'after chmod -R g+rX nginx reads that too')

  const [shard = ''] = await readdir(join(settings.DATA_DIR, 'audio'))
  await rename(join(settings.DATA_DIR, 'audio', shard), join(settings.DATA_DIR, 'elsewhere'))
  const lost = [await nginx.ask(old), await nginx.ask(young)].filter(({ status }) => status !== 200)
  t.ok(lost.length > 0)
  for (const { status, json } of lost) t.match({ status, code: json().code }, { status: 404, code: 'audio_lost' }, 'a file that is gone')
})

t.test('behind nginx a Unix socket is as good as a port, and a dead voicemaild is a 502 only as long as it is dead', async t => {
  const folder = t.testdir()
  const settings = { LISTEN: join(tmpdir(), `voicemaild-${process.pid}.socket`), PUBLIC_URL: `https://localhost:${await freePort()}`, DATA_DIR: join(folder, 'data'), MIN_FREE_DISK: '0', TRUST_PROXY: 'true', LOG_LEVEL: 'info' }
  const first = await startServer(t, { cwd: folder, settings })
  const nginx = await startNginx(t, settings, folder)
  const headers = { 'x-api-key': (await readFile(join(settings.DATA_DIR, 'admin-api-key'), 'utf8')).trim(), 'content-type': 'application/json', 'x-forwarded-for': '203.0.113.9' }
  const post = async (path: string, body: object): Promise<Json> => (await nginx.ask(path, { method: 'POST', headers, body: Buffer.from(JSON.stringify(body)) })).json()
  await post('/accounts', { sip_uri: 'sip:bob@sip.example.org' })
  const audio = await sample('ok/pcm16-16k.wav')
  const voicemail = async (): Promise<string> => {
    const { upload_url: path } = await post('/accounts/1/voicemails', { sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' })
    return (await nginx.ask(path, { method: 'POST', headers: { 'content-type': 'audio/wav' }, body: audio })).json().download_url
  }
  const heard = await voicemail()
  t.ok((await nginx.ask(heard)).bytes.equals(audio))
  await until(async () => first.out().includes('uploads'))
  t.match(first.out(), '"address":"127.0.0.1"')
  t.notMatch(first.out(), '203.0.113.9', 'the address is the real one')

  t.equal(await first.stop('SIGTERM'), 0)
  t.equal((await nginx.ask('/ping')).status, 502)
  await startServer(t, { cwd: folder, settings })
  t.equal((await nginx.ask('/ping')).status, 200)
  t.ok((await nginx.ask(heard)).bytes.equals(audio))
  t.ok((await nginx.ask(await voicemail())).bytes.equals(audio))
})

t.test('a refusal is our problem, while 20 MB are still being sent too, and leaves nothing', async t => {
  const { nginx, service } = await startBehindNginx(t)
  const { id: accountId } = await service.addUser()
  const big = wavOf(20_000_000)
  const head = (path: string, ...lines: string[]): string => [`PUT ${path} HTTP/1.1`, 'host: localhost', ...lines, '', ''].join('\r\n')
  for (const [body, lines, status, code] of [
    [big, [`content-length: ${big.length}`], 413, 'upload_too_large'],
    [wavOf(15_000_001), ['content-length: 15000001'], 413, 'upload_too_large'],
    [Buffer.alloc(20_000_000, 'x'), ['content-length: 15000000'], 415, 'unsupported_audio'],
    [Buffer.from('no audio'), ['content-length: 8'], 415, 'unsupported_audio'],
    [big, [`content-length: ${big.length}`, 'content-type: text/plain'], 415, 'unsupported_media_type'],
    [Buffer.concat([Buffer.from(`${big.length.toString(16)}\r\n`), big, Buffer.from('\r\n0\r\n\r\n')]), ['transfer-encoding: chunked'], 413, 'upload_too_large']
  ] as Array<[Buffer, string[], number, string]>) {
    const { path, id } = await service.openSlot(accountId)
    const heard = await nginx.raw(Buffer.concat([Buffer.from(head(path, ...lines)), body]), heard => heard.endsWith('}'))
    t.strictSame(statuses(heard), [status], lines.join())
    t.match(heard, /content-type: application\/problem\+json/i)
    t.match(heard, `"code":"${code}"`)
    t.match((await service.call('GET', `/accounts/${accountId}/voicemails/${id}`)).body, { status: 'pending', failure: { code } }, 'the slot knows why')
    await nothingKept(t, service, accountId)
  }
  // Node's own client loses an answer that comes before the end of what it sends over HTTP/2; curl is made with the library that the recorder has.
  const { path } = await service.openSlot(accountId)
  const file = join(service.dataFolder, '..', 'big.wav')
  await writeFile(file, big)
  const { stdout } = await promisify(execFile)('curl', ['-sk', '--http2', '-w', '\n%{http_version} %{http_code}', '-T', file, nginx.url + path])
  t.match(stdout, /"code":"upload_too_large".*\n2 413$/, 'over HTTP/2')
  await nothingKept(t, service, accountId)
})

async function overHttp2 (session: ClientHttp2Session, method: string, path: string, headers: Record<string, string>, body?: Buffer): Promise<{ status: number, body: Json }> {
  const stream = session.request({ ':method': method, ':path': path, ...headers }, { endStream: body === undefined })
  if (body !== undefined) stream.end(body)
  const [answer] = await once(stream, 'response') as [IncomingHttpHeaders & { ':status': number }]
  let text = ''
  stream.setEncoding('utf8')
  stream.on('data', (piece: string) => { text += piece })
  await new Promise(resolve => { stream.once('end', resolve).once('close', resolve) })
  return { status: answer[':status'], body: JSON.parse(text) }
}

t.test('200 recordings that end together are stored, over one HTTP/2 connection', async t => {
  const { nginx, service } = await startBehindNginx(t, WAYS[1][1])
  const bob = await service.addUser('sip:bob@sip.example.org')
  const session = await nginx.http2()
  const body = await sample('ok/flexisip-voicemail-0.27s.multipart')
  const headers = { 'x-api-key': service.adminKey }
  const found = await overHttp2(session, 'GET', '/api/accounts/bob@sip.example.org/search', { ...headers, 'content-type': 'application/json', 'content-length': '0' })
  t.match(found, { status: 200, body: { id: bob.id } })
  const calls = await Promise.all(Array.from({ length: 200 }, async (_none, n) => {
    const own = Buffer.from(body)
    own.writeUInt32LE(n, body.indexOf('RIFF') + 1000)
    const slot = await overHttp2(session, 'POST', `/api/accounts/${bob.id}/voicemails`, { ...headers, 'content-type': 'application/json' }, Buffer.from('{"content_type":"audio/wav","sip_from":"sip:alice@sip.example.org"}'))
    const { pathname } = new URL(slot.body.upload_url)
    return await overHttp2(session, 'POST', pathname, { ...headers, 'content-type': 'multipart/form-data; boundary="simple boundary"', 'content-length': String(own.length) }, own)
  }))
  t.strictSame(calls.filter(({ status }) => status !== 200), [])
  t.equal(new Set(calls.map(({ body }) => body.sha256)).size, 200)
  t.equal((await service.files()).length, 200)
  const last = await nginx.ask(calls[199]?.body.download_url)
  t.equal(last.bytes.readUInt32LE(1000), 199)
})

t.test('no request is smuggled past nginx, and none reaches the internal location', async t => {
  const behind = await startBehindNginx(t, WAYS[1][1])
  const { nginx, service } = behind
  const { id: accountId, key } = await service.addUser()
  const victim = await store(behind, await sample('ok/pcm16-16k.wav'))
  const inner = `DELETE /accounts/${victim.accountId}/voicemails/${victim.id} HTTP/1.1\r\nhost: localhost\r\nx-api-key: ${service.adminKey}\r\n\r\n`
  const requests = (): number => service.log.filter(line => line.includes('"msg":"request"')).length
  const [name = ''] = await service.files()
  for (const lines of [
    ['content-length: 6', 'transfer-encoding: chunked'],
    ['transfer-encoding: chunked', 'content-length: 4'],
    ['transfer-encoding: xchunked'],
    ['transfer-encoding: chunked, identity'],
    ['transfer-encoding: identity, chunked'],
    ['transfer-encoding: chunked', 'transfer-encoding: x'],
    ['transfer-encoding:\tchunked', 'content-length: 5'],
    ['transfer-encoding: \x0bchunked', 'content-length: 5'],
    ['transfer-encoding : chunked', 'content-length: 5'],
    ['content-length: 5', `content-length: ${inner.length + 5}`],
    ['content-length: 5, 5'],
    ['content-length: +5'],
    ['content-length: 5 6'],
    ['x-folded: a', '\tcontent-length: 5'],
    ['x: y\ntransfer-encoding: chunked', 'content-length: 5']
  ]) {
    const { path, id } = await service.openSlot(accountId)
    const before = requests()
    const heard = await nginx.raw([`POST ${path} HTTP/1.1`, 'host: localhost', 'connection: close', ...lines, '', `0\r\n\r\n${inner}`].join('\r\n'))
    t.equal(statuses(heard).length, 1, `one answer to ${JSON.stringify(lines)}`)
    t.ok(statuses(heard).every(status => status >= 400), `a refusal (${statuses(heard)})`)
    t.ok(requests() - before <= 1)
    t.match((await service.call('GET', `/accounts/${accountId}/voicemails/${id}`)).body, { status: 'pending' })
  }
  t.match((await nginx.ask(victim.url)).status, 200, 'whatever was behind them has not been done')

  const internal = `protected-audio/${name.slice(0, 2)}/${name}`
  for (const target of [
    `/${internal}`, `//${internal}`, `/%70rotected-audio/${name.slice(0, 2)}/${name}`, `/x/../${internal}`, `/${internal.replaceAll('/', '%2f')}`, `/api/${internal}`,
    '/protected-audio/../signing-key', '/protected-audio/..%2fsigning-key', '/protected-audio../signing-key', '/protected-audio/%2e%2e/signing-key', `/protected-audio/./${name.slice(0, 2)}/${name}`,
    `https://localhost/${internal}`, '/protected-audio/', '/protected-audio'
  ]) {
    const heard = await nginx.raw(`GET ${target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`)
    t.strictSame(statuses(heard), [404], target)
    t.notMatch(heard, 'RIFF')
  }
  const { pathname } = new URL(victim.url)
  for (const [target, status] of [
    [`https://localhost${pathname}`, 200], [pathname.replace('/downloads/', '//downloads/'), 404], [pathname.replace('/downloads/', '/downloads%2f'), 404],
    [pathname.replace(';', '%2f'), 403], [`/x/..${pathname}`, 404], [`${pathname}/`, 404], [`${pathname}%00`, 400]
  ] as const) {
    t.strictSame(statuses(await nginx.raw(`GET ${target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`)), [status], target.slice(0, 30))
  }
  t.equal((await service.call('GET', `/accounts/${accountId}`, undefined, { 'x-api-key': key })).status, 200)
})

t.test('clients are known by their own address, and what is for the inside stays there', async t => {
  const { nginx, service } = await startBehindNginx(t, { AUTH_FAILURES_PER_MINUTE: '3' })
  for (const path of ['/metrics', '/health/live', '/health/ready', '/api/metrics', '/api/health/live']) {
    t.equal((await nginx.ask(path)).status, 200, path)
    t.equal((await nginx.ask(path, { from: '127.0.0.2' })).status, 403, `${path} from outside`)
  }
  for (const target of ['//metrics', '/%6detrics', '/api%2fmetrics', '/x/../metrics', '/metrics?x', '/metrics/', '/api//metrics', '/./health/live', 'http://localhost/metrics', '/api/api/metrics', '/METRICS', '/metrics;x', '/metrics%3fx', '/health/../ping']) {
    const answer = await nginx.raw(`GET ${target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-forwarded-for: 127.0.0.2\r\n\r\n`)
    t.notMatch(answer.toLowerCase().includes('voicemaild_') && !['//metrics', '/metrics?x', '/%6detrics', 'http://localhost/metrics'].includes(target), true, target)
  }
  t.equal((await nginx.ask('/ping', { from: '127.0.0.2' })).status, 200)

  const guess = async (n: number): Promise<number> => (await nginx.ask('/accounts', {
    headers: { 'x-api-key': 'wrong', 'x-forwarded-for': `203.0.113.${n}`, 'x-real-ip': `203.0.113.${n}`, forwarded: `for=203.0.113.${n}` }, from: '127.0.0.3'
  })).status
  t.strictSame([await guess(1), await guess(2), await guess(3), await guess(4)], [401, 401, 401, 429], 'a new name each time does not help')
  t.equal((await nginx.ask('/accounts', { headers: { 'x-api-key': 'wrong' }, from: '127.0.0.4' })).status, 401, 'nor does it harm another')
  t.ok(service.log.some(line => line.includes('"address":"127.0.0.3"')))
  t.notOk(service.log.some(line => line.includes('203.0.113.')), 'nor is it in the log')

  const plain = await fetch(`http://127.0.0.1:${nginx.plainPort}/docs?x=1`, { redirect: 'manual', headers: { host: 'localhost' } })
  t.match({ status: plain.status, location: plain.headers.get('location') }, { status: 301, location: `https://127.0.0.1:${nginx.port}/docs?x=1` })
  for (const path of ['/uploads/x', '/api/downloads/x']) t.equal((await fetch(`http://127.0.0.1:${nginx.plainPort}${path}`, { redirect: 'manual' })).status, 403, path)
})

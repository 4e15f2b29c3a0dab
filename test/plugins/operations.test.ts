import { once } from 'node:events'
import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import ajvFormats from 'ajv-formats'
import Sqlite from 'better-sqlite3'
import t from 'tap'
import { sample, startService, wavOf, type Json, type Service } from '../helper.js'
import { signJwt } from '../json-web-token.js'
import { connectTo, head, until } from '../wire/connection.js'

const SECRET = 'a shared secret of more than 32 characters'
const wav = await sample('ok/flexisip-voicemail-0.27s.wav')

t.test('/ping answers pong, /health/live that the process answers, to anybody', async t => {
  const { url } = await startService(t)
  for (const [path, type, text] of [['/ping', 'text/plain; charset=utf-8', 'pong'], ['/health/live', 'application/json; charset=utf-8', '{"status":"ok"}'], ['/health/ready', 'application/json; charset=utf-8', '{"status":"ok"}']] as const) {
    for (const prefix of ['', '/api']) {
      const response = await fetch(url + prefix + path)
      t.strictSame([response.status, response.headers.get('content-type'), await response.text()], [200, type, text], prefix + path)
    }
  }
  const connection = connectTo(t, url)
  await connection.send(head('GET', 'http://vm.example.org/api/ping'))
  t.equal((await connection.answer()).body, 'pong', 'as a proxy may ask (RFC 9112 section 3.2.2)')
})

t.test('/health/ready is 503 with the reason while a voicemail could not be taken, and the process is alive still', async t => {
  let free = 1e12
  const { call, dataFolder } = await startService(t, {
    settings: { MIN_FREE_DISK: '1000000' },
    meddle: ({ audioStore }) => { audioStore.freeBytes = async () => free }
  })
  const isReady = async (): Promise<void> => { t.match(await call('GET', '/health/ready', undefined, {}), { status: 200, body: { status: 'ok' } }) }
  const isNotReady = async (reason: RegExp): Promise<void> => {
    const { status, headers, body } = await call('GET', '/health/ready', undefined, {})
    t.match({ status, body }, { status: 503, body: { code: 'unavailable', detail: reason } })
    t.equal(headers.get('content-type'), 'application/problem+json')
    t.notMatch(JSON.stringify(body), dataFolder, 'without a word of the inside')
    t.equal((await call('GET', '/health/live', undefined, {})).status, 200)
  }
  await isReady()
  free = 999_999
  await isNotReady(/disk/)
  free = 1_000_000
  await isReady()
  for (const folder of ['incoming', 'audio']) {
    await rename(join(dataFolder, folder), join(dataFolder, `${folder}-away`))
    await isNotReady(/database or the data folder cannot be written/)
    await rename(join(dataFolder, `${folder}-away`), join(dataFolder, folder))
    await isReady()
  }
})

t.test('/health/ready is 503 when the database cannot be written', async t => {
  const { call } = await startService(t, { meddle: data => { data.probeRows = () => { throw new Sqlite.SqliteError('attempt to write a readonly database', 'SQLITE_READONLY') } } })
  t.match(await call('GET', '/health/ready'), { status: 503, body: { code: 'unavailable', detail: 'The database or the data folder cannot be written.' } })
})

/** Samples of a metric by their labels, as Prometheus would read them. */
async function readMetrics ({ url }: Service): Promise<Map<string, number>> {
  const response = await fetch(`${url}/metrics`)
  const text = await response.text()
  return new Map(text.split('\n').filter(line => line !== '' && !line.startsWith('#')).map(line => {
    const [, name = '', value = ''] = /^([a-zA-Z_:][a-zA-Z0-9_:]*(?:\{[^}]*\})?) (\S+)$/.exec(line) ?? []
    return [name, Number(value)]
  }))
}

t.test('/metrics counts requests, uploads by outcome, bytes and open slots, and tells of process and event loop', async t => {
  const service = await startService(t)
  const { id } = await service.addUser()
  const [first, second] = [await service.openSlot(id), await service.openSlot(id), await service.openSlot(id)]
  const uploaded: Json = await (await fetch(first.uploadUrl, { method: 'PUT', body: wav })).json()
  await fetch(first.uploadUrl, { method: 'PUT', body: wav })
  await fetch(second.uploadUrl, { method: 'PUT', body: await sample('bad/html-named.wav') })
  await fetch(second.uploadUrl, { method: 'PUT', body: wav, headers: { 'content-type': 'audio/mpeg' } })
  await (await fetch(uploaded.download_url)).arrayBuffer()
  await (await fetch(uploaded.download_url, { headers: { range: 'bytes=0-99' } })).arrayBuffer()
  await service.call('GET', '/nowhere')
  await service.call('PROPFIND', '/ping')

  const response = await fetch(`${service.url}/metrics`)
  t.match(response.headers.get('content-type'), /^text\/plain; version=0\.0\.4/)
  const text = await response.text()
  const metrics = await readMetrics(service)
  t.notOk(metrics.has(''), 'every line can be read')
  for (const [name, value] of [
    ['voicemaild_uploads_total{outcome="stored"}', 1],
    ['voicemaild_uploads_total{outcome="repeated"}', 1],
    ['voicemaild_uploads_total{outcome="unsupported_audio"}', 1],
    ['voicemaild_uploads_total{outcome="unsupported_media_type"}', 1],
    ['voicemaild_upload_bytes_total', wav.length],
    ['voicemaild_download_bytes_total', wav.length + 100],
    ['voicemaild_open_slots', 2],
    ['http_request_duration_seconds_count{method="POST",route="/accounts/:id/voicemails",status="201"}', 3],
    ['http_request_duration_seconds_count{method="PUT",route="/uploads/:token",status="200"}', 2],
    ['http_request_duration_seconds_count{method="PUT",route="/uploads/:token",status="415"}', 2],
    ['http_request_duration_seconds_count{method="GET",route="/downloads/:token",status="206"}', 1],
    ['http_request_duration_seconds_count{method="GET",route="none",status="404"}', 1],
    ['http_request_duration_seconds_count{method="PROPFIND",route="/ping",status="405"}', 1]
  ] as const) {
    t.equal(metrics.get(name), value, name)
  }
  for (const name of ['process_cpu_seconds_total', 'process_resident_memory_bytes', 'nodejs_eventloop_lag_seconds', 'nodejs_eventloop_lag_p99_seconds']) t.ok(metrics.has(name), name)
  for (const line of text.split('\n').filter(line => line.startsWith('# HELP'))) t.match(line, /^# HELP \S+ \S/)
  for (const secret of [first.id, new URL(first.uploadUrl).pathname, service.adminKey]) t.notOk(text.includes(secret), 'no label is an id')
  await service.call('DELETE', `/accounts/${id}`)
  t.equal((await readMetrics(service)).get('voicemaild_open_slots'), 0)
})

t.test('two services in one process count each for itself', async t => {
  const folder = t.testdir()
  const [one, other] = await Promise.all(['one', 'other'].map(async name => await startService(t, { settings: { DATA_DIR: join(folder, name) } })))
  if (one === undefined || other === undefined) return
  await one.call('GET', '/ping')
  const name = 'http_request_duration_seconds_count{method="GET",route="/ping",status="200"}'
  t.strictSame([(await readMetrics(one)).get(name), (await readMetrics(other)).get(name)], [1, undefined])
})

/** Every operation of API.md. */
const OPERATIONS = [
  'post /accounts', 'get /accounts', 'get /accounts/{id}', 'delete /accounts/{id}', 'get /accounts/{id}/search',
  'get /accounts/{id}/quota', 'patch /accounts/{id}/quota', 'get /accounts/{id}/voicemails/{uuid}/events',
  'post /accounts/{id}/api_keys', 'get /accounts/{id}/api_keys', 'delete /accounts/{id}/api_keys/{key_id}',
  'post /accounts/{id}/voicemails', 'get /accounts/{id}/voicemails', 'get /accounts/{id}/voicemails/{uuid}', 'patch /accounts/{id}/voicemails/{uuid}', 'delete /accounts/{id}/voicemails/{uuid}',
  'put /uploads/{token}', 'post /uploads/{token}', 'get /downloads/{token}', 'head /downloads/{token}',
  'get /ping', 'get /health/live', 'get /health/ready', 'get /metrics'
]

t.test('/openapi.json describes every operation there is, and what it describes is valid', async t => {
  const { call, app, addUser, openSlot } = await startService(t, { looksInside: true })
  const { status, headers, body: document } = await call('GET', '/openapi.json', undefined, {})
  t.equal(status, 200)
  t.match(headers.get('content-type'), /^application\/json/)
  t.match(document, { openapi: /^3\.1\./, info: { title: 'voicemaild', version: /^\d+\.\d+\.\d+/ } })
  const operations = Object.entries<Record<string, Json>>(document.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]): [string, Json] => [`${method} ${path}`, operation]))
  t.strictSame(operations.map(([name]) => name).sort(), [...OPERATIONS].sort())
  for (const [name] of operations) {
    const [method = '', path = ''] = name.split(' ')
    t.ok(app.hasRoute({ method: method.toUpperCase(), url: path.replace(/\{(\w+)\}/g, ':$1') }), `${name} is there`)
  }

  const ajv = new Ajv2020({ strict: false, allErrors: true })
  ajvFormats.default(ajv)
  ajv.addSchema({ $id: 'document', ...document })
  const compile = (schema: Json) => ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"document#/')))
  for (const [name, operation] of operations) {
    t.match(operation, { summary: /^[A-Z]/, tags: [/./] }, name)
    const parameters: Json[] = operation.parameters ?? []
    t.strictSame(parameters.filter(parameter => parameter.in === 'path').map(parameter => `{${parameter.name}}`).sort(), (name.match(/\{\w+\}/g) ?? []).sort(), `${name}: every parameter of the path`)
    for (const parameter of parameters) {
      t.match(parameter, { name: /./, in: /^(path|query)$/ })
      if (parameter.in === 'path') t.equal(parameter.required, true)
      compile(parameter.schema)
    }
    t.equal(operation.requestBody?.content['application/json'] !== undefined, /^(post|patch) \/accounts/.test(name), `${name}: a JSON body where one is taken`)
    t.match(operation.responses.default.content, { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } })
    t.ok(Object.keys(operation.responses).some(status => /^2\d\d$/.test(status)), `${name}: an answer that is none of those`)
    for (const { content = {} } of [operation.requestBody ?? {}, ...Object.values<Json>(operation.responses)]) for (const { schema } of Object.values<Json>(content)) compile(schema)
    t.strictSame(operation.security ?? document.security, /\/accounts/.test(name) ? [{ apiKey: [] }, { jwt: [] }] : [], `${name}: who may ask`)
  }
  t.match(document.components.securitySchemes, { apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key' }, jwt: { type: 'http', scheme: 'bearer' } })

  const { id } = await addUser()
  const { uploadUrl } = await openSlot(id)
  await fetch(uploadUrl, { method: 'PUT', body: wav })
  const conforms = async (name: string, wanted: number, path: string, body?: unknown): Promise<void> => {
    const answer = await call(name.split(' ', 1)[0]?.toUpperCase() ?? '', path, body)
    t.equal(answer.status, wanted, name)
    const responses = document.paths[name.split(' ')[1] ?? ''][name.split(' ')[0] ?? ''].responses
    const [{ schema }] = Object.values<Json>((responses[answer.status] ?? responses.default).content)
    const validate = compile(schema)
    t.ok(validate(answer.body), `${name}: the answer is as it is described ${JSON.stringify(validate.errors)}`)
  }
  await conforms('post /accounts', 201, '/accounts', { sip_uri: 'sip:x@y.example', email: 'x@y.example' })
  await conforms('post /accounts', 422, '/accounts', {})
  await conforms('get /accounts', 200, '/accounts')
  await conforms('get /accounts/{id}', 404, '/accounts/999')
  await conforms('post /accounts/{id}/voicemails', 201, `/accounts/${id}/voicemails`, { sip_from: 'a@b.example', content_type: 'audio/wav' })
  await conforms('get /accounts/{id}/voicemails', 200, `/accounts/${id}/voicemails`)
  await conforms('get /accounts/{id}/api_keys', 200, `/accounts/${id}/api_keys`)
  await conforms('post /accounts/{id}/api_keys', 201, `/accounts/${id}/api_keys`, { name: 'x' })
})

t.test('/docs is a page that gets all that it needs from here, under a policy that lets nothing else in', async t => {
  const { url } = await startService(t)
  for (const start of ['/docs', '/docs/', '/api/docs/']) {
    const page = await fetch(url + start)
    const html = await page.text()
    t.equal(page.status, 200, start)
    t.match(page.headers.get('content-type'), /^text\/html/)
    const policy = page.headers.get('content-security-policy') ?? ''
    t.match(policy, /default-src 'self'/)
    t.notMatch(policy, /unsafe-|https:\/\/|upgrade-insecure-requests|\*/)
    t.equal(page.headers.get('x-content-type-options'), 'nosniff')
    const assets = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, path = '']) => new URL(path, url + start))
    t.ok(assets.length > 3)
    for (const asset of assets) {
      t.equal(asset.origin, url, 'nothing comes from elsewhere')
      const response = await fetch(asset)
      t.equal(response.status, 200, asset.pathname)
      t.ok((await response.text()).length > 0)
      t.equal(response.headers.get('x-content-type-options'), 'nosniff')
    }
    t.notMatch(html, /<script>(?!<)|<style>|\son[a-z]+="/, 'nothing stands inline, which the policy would refuse')
  }
  for (const path of ['/docs/static/..%2f..%2f..%2fpackage.json', '/docs/static/%2e%2e/%2e%2e/package.json', '/docs/static/../../package.json']) {
    const connection = connectTo(t, url)
    await connection.send(head('GET', path))
    const { status, body } = await connection.answer()
    t.ok(status === 400 || status === 404, path)
    t.notMatch(body, 'dependencies')
    connection.socket.destroy()
  }
})

t.test('security headers are on every answer, good or bad', async t => {
  const service = await startService(t)
  const { id } = await service.addUser()
  const { path, uploadUrl } = await service.openSlot(id)
  const stored: Json = await (await fetch(uploadUrl, { method: 'PUT', body: wav })).json()
  const download = new URL(stored.download_url).pathname
  for (const [method, target] of [
    ['GET', '/ping'], ['HEAD', '/ping'], ['GET', '/health/ready'], ['GET', '/metrics'], ['GET', '/openapi.json'], ['GET', '/docs'], ['GET', '/docs/'], ['GET', '/docs/static/swagger-ui.css'], ['GET', '/docs/static/x'],
    ['GET', '/accounts'], ['GET', `/accounts/${id}/voicemails`], ['POST', '/accounts'], ['OPTIONS', '/accounts'], ['GET', '/x'], ['GET', '/accounts/%'], ['GET', `/accounts/${'x'.repeat(3000)}`],
    ['PUT', path], ['PUT', `${path}x`], ['GET', download], ['HEAD', download], ['GET', `${download}x`]
  ] as const) {
    const { headers } = await fetch(service.url + target, { method, headers: { 'x-api-key': service.adminKey } })
    t.equal(headers.get('x-content-type-options'), 'nosniff', `${method} ${target.slice(0, 40)}`)
    t.match(headers.get('content-security-policy'), /default-src '(none|self)';.*frame-ancestors '(none|self)'/)
    t.equal(headers.get('referrer-policy'), 'no-referrer')
    t.match(headers.get('cross-origin-resource-policy'), /^(same-origin|cross-origin)$/)
    t.match(headers.get('cache-control'), /no-store|private|public, max-age=0/)
    t.equal(headers.get('x-powered-by'), null)
    t.equal(headers.get('server'), null)
  }
})

t.test('there is one line a request, with its id, route, status, outcome and time', async t => {
  const { call, url, log, addUser, openSlot } = await startService(t)
  const { id } = await addUser()
  const { id: uuid, uploadUrl } = await openSlot(id)
  const lines = (): Json[] => log.map(line => JSON.parse(line)).filter(({ msg }) => msg === 'request')
  const request = async (send: () => Promise<unknown>): Promise<Json> => {
    const before = lines().length
    await send()
    await until(async () => lines().length > before)
    t.equal(lines().length, before + 1, 'one')
    return lines().at(-1)
  }
  await until(async () => lines().length === 3)
  const common = { level: 30, time: Number, request_id: /^[A-Za-z0-9_-]{12}$/, duration_ms: Number, address: '127.0.0.1' }
  t.match(await request(async () => await call('GET', `/api/accounts/${id}/voicemails/${uuid}`)), { ...common, method: 'GET', route: '/accounts/:id/voicemails/:uuid', account: String(id), voicemail: uuid, status: 200 })
  t.match(await request(async () => await fetch(uploadUrl, { method: 'PUT', body: wav })), { ...common, method: 'PUT', route: '/uploads/:token', voicemail: uuid, status: 200 })
  t.match(await request(async () => await call('GET', '/accounts/999')), { ...common, account: '999', status: 404, outcome: 'not_found' })
  t.match(await request(async () => await call('GET', '/accounts', undefined, {})), { ...common, route: '/accounts', status: 401, outcome: 'unauthorized' })
  t.match(await request(async () => await call('GET', '/x')), { ...common, status: 404, outcome: 'not_found' })
  t.match(await request(async () => await call('GET', '/%')), { ...common, status: 400, outcome: 'malformed_request' })
  t.match(await request(async () => await call('GET', `/accounts/${'x'.repeat(3000)}`)), { ...common, status: 404, outcome: 'not_found' })
  t.match(await request(async () => await call('DELETE', '/ping')), { ...common, route: '/ping', status: 405, outcome: 'method_not_allowed' })
  const { body: problem } = await call('GET', '/y')
  await until(async () => lines().some(line => line.request_id === problem.request_id))
  let leaving = ''
  await request(async () => { leaving = (await openSlot(id)).path })
  t.match(await request(async () => {
    const connection = connectTo(t, url)
    await connection.send(head('PUT', leaving, { 'content-length': 100_000 }), wavOf(50_000))
    connection.socket.destroy()
  }), { ...common, method: 'PUT', outcome: 'body_incomplete' }, 'of a sender that went away too')
})

t.test('keys, tokens, signatures and signed paths are in no line of the log, whatever happens', async t => {
  let isBroken = false
  const service = await startService(t, {
    settings: { JWT_SECRET: SECRET, AUTH_FAILURES_PER_MINUTE: '5', UPLOAD_IDLE_TIMEOUT: '3600' },
    meddle: ({ accountStore, audioStore }) => {
      const { list } = accountStore
      accountStore.list = async page => isBroken ? await Promise.reject(new Error('broken')) : await list(page)
      const { open } = audioStore
      audioStore.open = async name => isBroken ? await Promise.reject(new Error('broken')) : await open(name)
    }
  })
  const { call, adminKey, log, url } = service
  const { id, key } = await service.addUser()
  const slot = await service.openSlot(id)
  const large = await service.openSlot(id)
  const bytes = wavOf(5_000_000)
  const stored: Json = await (await fetch(slot.uploadUrl, { method: 'PUT', body: wav })).json()
  const largeStored: Json = await (await fetch(large.uploadUrl, { method: 'PUT', body: bytes })).json()
  const open = await service.openSlot(id)
  const token = signJwt({ sub: String(id) }, SECRET)
  const paths = [slot.path, open.path, new URL(stored.download_url).pathname, new URL(largeStored.download_url).pathname]
  const signatures = paths.map(path => path.slice(path.lastIndexOf('=') + 1))
  const secrets = [adminKey, key, 'vm_wrong-key-of-somebody', token, token.split('.')[2] ?? '', SECRET, ...signatures, ...signatures.map(signature => signature.slice(0, 20)), ';expires=']
  const raw = async (text: string, isAnswered = true): Promise<void> => {
    const connection = connectTo(t, url)
    await connection.send(text)
    if (isAnswered) await connection.answer()
    connection.socket.destroy()
  }

  for (const path of paths) {
    const last = path.slice(path.lastIndexOf('/') + 1)
    for (const target of [
      path, `/api${path}`, `${path}x`, path.slice(0, -1), `${path}/`, `/api/api${path}`, `//${path}`, path.slice(1), `${path}?x=${last}`, `/x?${last}`, `/${last}`, `/x${path}`, `${path}${path}`, path.replace('loads', 'load'),
      `${path}%zz`, `${path}%00`, path.replaceAll(';', '%3B'), path.replaceAll('=', '%3D'), `/uploads/${last}`, `/downloads/${last}`, `/downloads/${last}?download=1`,
      `/accounts/${last}`, `/accounts/${last}/search`, `/accounts/${last}/voicemails`, `/accounts/me/voicemails/${last}`, `/accounts/${id}/voicemails/${last}`, `/accounts/${id}/voicemails?before=${last}`, `/accounts/${id}/api_keys/${last}`,
      `/accounts/${key}`, `/accounts/${key}/search`, `/accounts/me/voicemails/${key}`, `/accounts/me?x-api-key=${key}`, `/docs/${last}`, `/docs/static/${last}`, `${url}${path}`, `/accounts/${last.padEnd(3000, 'x')}`
    ].filter(target => target !== open.path && target !== `/api${open.path}`)) {
      for (const method of ['GET', 'PUT', 'DELETE']) await raw(head(method, target, { 'x-api-key': adminKey, 'content-length': 0 }))
    }
  }
  for (const headers of [
    { 'x-api-key': key }, { 'x-api-key': 'vm_wrong-key-of-somebody' }, { 'x-api-key': `${key}x` }, { authorization: `Bearer ${token}` }, { authorization: `Bearer ${token}x` }, { authorization: token }, { authorization: `Basic ${key}` },
    { 'x-api-key': key, 'content-type': key }, { 'x-api-key': key, 'user-agent': 'x', referer: slot.uploadUrl, cookie: token }
  ] as Array<Record<string, string>>) {
    for (const path of ['/accounts/me', '/accounts', '/accounts/999', `/accounts/me/voicemails/${open.id}`]) {
      for (const method of ['GET', 'POST', 'PUT']) await call(method, path, method === 'GET' ? undefined : { sip_from: key, name: token }, headers)
    }
  }
  await raw(`${key} ${slot.path}\r\n\r\n`)
  await raw(head('GET', '/ping', { 'x-api-key': key, 'x-large': 'x'.repeat(20_000) }))
  await raw(`GET ${slot.path} HTTP/9.9\r\nx-api-key: ${key}\r\n\r\n`)
  // Those who go away: in the middle of an upload, of a JSON body and of a download.
  await raw(head('PUT', open.path, { 'x-api-key': key, 'content-length': 100_000 }) + 'RIFF', false)
  await raw(head('POST', `/accounts/${id}/voicemails`, { 'x-api-key': key, 'content-type': 'application/json', 'content-length': 100 }) + '{', false)
  const leaving = connectTo(t, url)
  await leaving.send(head('GET', new URL(largeStored.download_url).pathname, { 'x-api-key': key }))
  await once(leaving.socket, 'data')
  leaving.socket.destroy()
  for (const name of ['bad/html-named.wav', 'bad/empty.wav']) await fetch(open.uploadUrl, { method: 'PUT', body: await sample(name), headers: { 'x-api-key': key } })
  isBroken = true
  t.equal((await call('GET', '/accounts')).status, 500)
  t.equal((await call('GET', `/accounts?before=9&x=${key}`)).status, 500)
  t.equal((await fetch(stored.download_url, { headers: { authorization: `Bearer ${token}` } })).status, 500)
  await service.close()

  t.ok(log.length > 400)
  t.ok(log.some(line => line.includes('"level":50')), 'errors are among them')
  t.ok(log.some(line => line.includes(`"voicemail":"${slot.id}"`)), 'which voicemail it was is told')
  for (const secret of secrets) t.strictSame(log.filter(line => line.includes(secret)), [], 'no line has it')
})

import { readdir, readFile } from 'node:fs/promises'
import fc from 'fast-check'
import t from 'tap'
import { ERROR_CODES } from '../../src/errors.js'
import { STATUS_OF } from '../../src/plugins/problems.js'
import { startService, type Answer, type Json, type Service, type Testing } from '../helper.js'
import { chunk, connectTo, head, until, type RawAnswer } from '../wire/connection.js'

const SECURITY = { 'x-content-type-options': 'nosniff', 'content-security-policy': "default-src 'none'; frame-ancestors 'none'", 'referrer-policy': 'no-referrer' }
const NEW_SLOT = { sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' }

interface Asserting extends Testing {
  equal: (found: unknown, wanted: unknown, message: string) => unknown
  match: (found: unknown, wanted: unknown, message: string) => unknown
  strictSame: (found: unknown, wanted: unknown, message: string) => unknown
}

/** What every problem has, whichever it is. */
function isProblem (t: Asserting, { status, headers, body }: Answer, wantedStatus: number, code: string, about = ''): void {
  const what = `${wantedStatus} ${code} ${about}`
  t.equal(status, wantedStatus, what)
  t.equal(headers.get('content-type'), 'application/problem+json', what)
  t.match(body, { type: 'about:blank', title: /^[A-Z]/, status, detail: /^[A-Za-z].*\.$/, code, message: body.detail }, what)
  const known = ['type', 'title', 'status', 'detail', 'code', 'message', 'request_id', 'expected', 'found', 'errors']
  t.strictSame(Object.keys(body).filter(name => !known.includes(name)), [], what)
  t.strictSame(Object.fromEntries(Object.keys(SECURITY).map(name => [name, headers.get(name)])), SECURITY, what)
}

const asAnswer = ({ status, headers, body }: RawAnswer): Answer => ({ status, headers, body: JSON.parse(body) })

const service = await startService(t)
const { call, adminKey } = service
const { id, key } = await service.addUser()
const SLOTS = `/accounts/${id}/voicemails`

/** Sends a body as it is. */
async function send (method: string, path: string, body: string | Uint8Array, contentType: string | undefined = 'application/json'): Promise<Answer> {
  const response = await fetch(service.url + path, {
    method, body, headers: { 'x-api-key': adminKey, ...contentType !== undefined && { 'content-type': contentType } }
  })
  return { status: response.status, headers: response.headers, body: await response.json() }
}

/** Sends on a connection of its own what no HTTP client would. */
async function sendRaw (t: Testing, ...pieces: Array<string | Uint8Array>): Promise<Answer> {
  const connection = connectTo(t, service.url)
  await connection.send(...pieces)
  const answer = asAnswer(await connection.answer())
  connection.socket.destroy()
  return answer
}

/** Nothing that was refused has done a thing. */
async function nothingHasHappened (t: Asserting): Promise<void> {
  t.strictSame((await call('GET', SLOTS)).body, [], 'no slot was opened')
  t.equal((await call('GET', '/accounts')).headers.get('x-total-count'), '1', 'no account was added')
}

t.test('malformed JSON is 400', async t => {
  for (const body of ['{', '{"sip_from":}', 'sip_from=x', '{"sip_from":"a",}', "{'sip_from': 'a'}", '\uFEFF{', 'undefined', '[1', '{"a":1}{"b":2}', '\u0000', '{"sip_from":"sip:a@b.example" "content_type":"audio/wav"}']) {
    isProblem(t, await send('POST', SLOTS, body), 400, 'malformed_request', JSON.stringify(body))
  }
  await nothingHasHappened(t)
})

t.test('whatever is sent as JSON is answered with 400 or 422, and never with an error of ours', async t => {
  const members = fc.dictionary(fc.constantFrom('sip_from', 'content_type', 'read', 'name', 'role', 'expires_at', 'sip_uri', 'toString', 'constructor_'), fc.jsonValue())
  await fc.assert(fc.asyncProperty(fc.constantFrom('/accounts', SLOTS, `/accounts/${id}/api_keys`), fc.oneof(fc.string(), fc.json(), members.map(value => JSON.stringify({ ...value, content_type: 'x', role: 'x', sip_uri: 'x' }))), async (path, body) => {
    const { status, headers } = await send('POST', path, body)
    return (status === 400 || status === 422) && headers.get('content-type') === 'application/problem+json'
  }), { numRuns: 100 })
  await nothingHasHappened(t)
})

t.test('prototype pollution in JSON is refused', async t => {
  for (const body of [
    '{"sip_from":"sip:a@b.example","content_type":"audio/wav","__proto__":{"x":1}}',
    '{"__proto__":{"sip_from":"sip:a@b.example","content_type":"audio/wav"}}',
    '{"sip_from":"sip:a@b.example","content_type":"audio/wav","deep":[{"__proto__":null}]}',
    '{"sip_from":"sip:a@b.example","content_type":"audio/wav","\\u005f_proto__":{"x":1}}',
    '{"sip_from":"sip:a@b.example","content_type":"audio/wav","constructor":{"prototype":{"x":1}}}'
  ]) {
    isProblem(t, await send('POST', SLOTS, body), 400, 'malformed_request', body)
  }
  t.notOk('x' in {})
  await nothingHasHappened(t)
})

t.test('JSON of the wrong shape is 422 with every wrong field in errors, and its sentences in detail', async t => {
  const answer = await call('POST', SLOTS, { content_type: 'audio/mpeg' })
  isProblem(t, answer, 422, 'validation_failed')
  t.strictSame(answer.body.errors, {
    sip_from: ['is required'],
    content_type: ['must be equal to one of the allowed values: audio/opus, audio/wav']
  })
  for (const [field, sentences] of Object.entries<string[]>(answer.body.errors)) for (const sentence of sentences) t.match(answer.body.detail, `${field} ${sentence}`)
  for (const body of ['null', '7', '"x"', '[]', 'true', '']) {
    const answer = await send('POST', SLOTS, body)
    isProblem(t, answer, 422, 'validation_failed', body)
    t.strictSame(Object.keys(answer.body.errors), ['body'])
  }
  isProblem(t, await call('GET', `${SLOTS}?limit=0&before=x`), 422, 'validation_failed')
  t.strictSame(Object.keys((await call('GET', `${SLOTS}?limit=0&before=x`)).body.errors).sort(), ['before', 'limit'])
  await nothingHasHappened(t)
})

t.test('a body that is not declared as JSON is 415, with what was expected and what was found', async t => {
  const body = JSON.stringify(NEW_SLOT)
  for (const contentType of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'audio/wav', 'application/json-seq', 'text/json', 'x', `a/${'b'.repeat(2000)}`]) {
    const answer = await send('POST', SLOTS, body, contentType)
    isProblem(t, answer, 415, 'unsupported_media_type', contentType.slice(0, 40))
    t.match(answer.body, { expected: 'application/json', found: contentType.slice(0, 100) })
  }
  isProblem(t, await sendRaw(t, head('POST', SLOTS, { 'x-api-key': adminKey, 'content-length': body.length }), body), 415, 'unsupported_media_type', 'none')
  await nothingHasHappened(t)
  for (const contentType of ['application/json', 'Application/JSON; charset=utf-8', 'application/json;charset="utf-8"']) {
    const { status, body: { id: uuid } } = await send('POST', SLOTS, body, contentType)
    t.equal(status, 201, contentType)
    await call('DELETE', `${SLOTS}/${uuid}`)
  }
})

t.test('a JSON body over 64 KiB is 413, with a length and without one, and the answer reaches who is still sending', async t => {
  const body = Buffer.from(JSON.stringify({ ...NEW_SLOT, padding: 'x'.repeat(300_000) }))
  const headers = { 'x-api-key': adminKey, 'content-type': 'application/json' }
  const declared = await sendRaw(t, head('POST', SLOTS, { ...headers, 'content-length': body.length }), body)
  isProblem(t, declared, 413, 'body_too_large', 'declared')
  t.match(declared.body, { expected: 65_536, found: body.length })
  const early = await sendRaw(t, head('POST', SLOTS, { ...headers, 'content-length': 1e12 }))
  isProblem(t, early, 413, 'body_too_large', 'before a byte of it')
  const chunked = await sendRaw(t, head('POST', SLOTS, { ...headers, 'transfer-encoding': 'chunked' }), chunk(body), chunk(Buffer.alloc(0)))
  isProblem(t, chunked, 413, 'body_too_large', 'in chunks')
  t.match(chunked.body, { expected: 65_536, found: 'more than 65536' })
  await nothingHasHappened(t)
})

t.test('an unknown path is 404, to whoever asks', async t => {
  for (const path of ['/', '/x', '/api', '/api/', '/api/api/accounts', '/accounts/', '//accounts', '/Accounts', '/accounts/1/voicemails/x/y', '/.env', '/audio/', '/incoming/', '/../etc/passwd', '/%2e%2e/%2e%2e/etc/passwd',
    '/storage/voicemaild.sqlite', '/accounts/1/voicemail', `/accounts/${'x'.repeat(3000)}`]) {
    isProblem(t, await sendRaw(t, head('GET', path, { 'x-api-key': adminKey })), 404, 'not_found', path.slice(0, 40))
    // What begins like an account's path is not told of before the caller is known.
    if (path !== '/accounts/') isProblem(t, await sendRaw(t, head('GET', path)), 404, 'not_found', path.slice(0, 40))
  }
})

t.test('a method that a path does not have is 405 with Allow, whichever method it is', async t => {
  for (const [path, allow] of [
    ['/accounts', 'GET, HEAD, POST'], ['/api/accounts/me', 'DELETE, GET, HEAD'], ['/accounts/bob@sip.example.org/search', 'GET, HEAD'],
    [SLOTS, 'GET, HEAD, POST'], [`${SLOTS}/x`, 'DELETE, GET, HEAD, PATCH'], [`/accounts/${id}/api_keys`, 'GET, HEAD, POST'], [`/accounts/${id}/api_keys/1`, 'DELETE'],
    ['/uploads/x', 'POST, PUT'], ['/downloads/x', 'GET, HEAD'], ['/ping', 'GET, HEAD'], ['/health/live', 'GET, HEAD'], ['/health/ready', 'GET, HEAD'], ['/metrics', 'GET, HEAD'],
    ['/openapi.json', 'GET, HEAD'], ['/docs', 'GET, HEAD']
  ] as const) {
    for (const method of ['PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND', 'LOCK', 'PURGE'].filter(method => !allow.includes(method))) {
      const answer = await sendRaw(t, head(method, path, { 'content-type': 'application/json', 'content-length': 1 }), '{')
      isProblem(t, answer, 405, 'method_not_allowed', `${method} ${path}`)
      t.equal(answer.headers.get('allow'), allow)
      t.match(answer.body, { expected: allow, found: method })
    }
  }
})

t.test('an escape that is none is 400', async t => {
  for (const path of ['/accounts/%', '/accounts/%zz', '/accounts/%C3%28/search', '/uploads/%ff', '/%', '/api/accounts/%e0%a4%a']) {
    isProblem(t, await sendRaw(t, head('GET', path, { 'x-api-key': adminKey })), 400, 'malformed_request', path)
  }
})

t.test('garbage in place of HTTP is 400, headers that are too large are 431, and the connection ends', async t => {
  for (const [title, status, code, text] of [
    ['no HTTP', 400, 'malformed_request', 'hello\r\n\r\n'],
    ['TLS', 400, 'malformed_request', '\x16\x03\x01\x02\x00\x01\x00'],
    ['two lengths', 400, 'malformed_request', head('POST', SLOTS, { 'content-length': 5, 'Content-Length': 6 })],
    ['length and chunks', 400, 'malformed_request', head('POST', SLOTS, { 'content-length': 5, 'transfer-encoding': 'chunked' })],
    ['a chunk that is none', 400, 'malformed_request', `${head('POST', SLOTS, { 'x-api-key': adminKey, 'content-type': 'application/json', 'transfer-encoding': 'chunked' })}zz\r\n`],
    ['a control character in a header', 400, 'malformed_request', 'GET /ping HTTP/1.1\r\nhost: x\r\nx: a\x00b\r\n\r\n'],
    ['a large header', 431, 'headers_too_large', head('GET', '/ping', { 'x-large': 'x'.repeat(20_000) })],
    ['a large path', 431, 'headers_too_large', head('GET', `/${'x'.repeat(20_000)}`)]
  ] as const) {
    const connection = connectTo(t, service.url)
    await connection.send(text)
    isProblem(t, asAnswer(await connection.answer()), status, code, title)
    await connection.closed
  }
  t.equal((await call('GET', '/ping')).body, 'pong')
  await nothingHasHappened(t)
})

t.test('who may not, who is not there, and what is there already', async t => {
  isProblem(t, await call('GET', SLOTS, undefined, {}), 401, 'unauthorized')
  isProblem(t, await call('GET', '/accounts', undefined, { 'x-api-key': key }), 403, 'forbidden')
  isProblem(t, await call('GET', '/accounts/999'), 404, 'not_found')
  isProblem(t, await call('POST', '/accounts', { sip_uri: 'user1@sip.example.org' }), 409, 'account_exists')
  const { id: uuid } = await service.openSlot(id)
  isProblem(t, await call('PATCH', `${SLOTS}/${uuid}`, { read: true }), 409, 'voicemail_pending')
  await call('DELETE', `${SLOTS}/${uuid}`)
})

t.test('too many failures of one address are 429', async t => {
  const { call } = await startService(t, { settings: { AUTH_FAILURES_PER_MINUTE: '1' } })
  await call('GET', '/accounts', undefined, { 'x-api-key': 'x' })
  isProblem(t, await call('GET', '/accounts', undefined, { 'x-api-key': 'x' }), 429, 'too_many_failures')
})

t.test('an error of ours is 500 without a word of the inside, and the log has it under the same request_id', async t => {
  const INSIDE = 'SQLITE_CORRUPT in /var/lib/voicemaild'
  const fail = async (): Promise<never> => { throw new Error(INSIDE) }
  const { call, addUser, log } = await startService(t, {
    meddle: ({ voicemailStore, accountStore }) => {
      voicemailStore.list = fail
      voicemailStore.addSlot = async () => { throw Object.assign(new Error(INSIDE), { code: 'SQLITE_CORRUPT' }) }
      voicemailStore.findOf = async () => { throw INSIDE }
      accountStore.count = fail
      const { findByAddressKey } = accountStore
      accountStore.findByAddressKey = async addressKey => addressKey.startsWith('broken@') ? await fail() : await findByAddressKey(addressKey)
    }
  })
  const { id } = await addUser()
  for (const [method, path, body] of [
    ['GET', `/accounts/${id}/voicemails`, undefined], ['POST', `/accounts/${id}/voicemails`, NEW_SLOT], ['GET', `/accounts/${id}/voicemails/x`, undefined],
    ['GET', '/accounts', undefined], ['GET', '/accounts/broken@sip.example.org/search', undefined]
  ] as const) {
    const answer = await call(method, path, body)
    isProblem(t, answer, 500, 'internal_error', path)
    t.notMatch(JSON.stringify(answer.body), /SQLITE|var|lib|\.ts|\.js/)
    await until(async () => log.filter(line => line.includes(answer.body.request_id)).length >= 2)
    const lines: Json[] = log.map(line => JSON.parse(line)).filter(line => line.request_id === answer.body.request_id)
    t.equal(lines.filter(({ level }) => level >= 50).length, 1, 'logged once as an error')
    t.match(lines.find(({ level }) => level >= 50), { code: 'internal_error' })
    t.match(JSON.stringify(lines), INSIDE, 'with what happened')
    t.match(lines.find(({ msg }) => msg === 'request'), { status: 500, outcome: 'internal_error' })
  }
})

t.test('where the disk floor is reached a slot is 507, and deleting still works', async t => {
  let free = 1e12
  const { call, addUser, openSlot, files } = await startService(t, {
    settings: { MIN_FREE_DISK: '1000000', MAX_UPLOAD_SIZE: '20000' },
    meddle: ({ audioStore }) => { audioStore.freeBytes = async () => free }
  })
  const { id } = await addUser()
  const first = await openSlot(id)
  free = 1_000_000 + 2 * 20_000
  const second = await openSlot(id)
  t.ok(second.id, 'to the last byte')
  const refused = await call('POST', `/accounts/${id}/voicemails`, NEW_SLOT)
  isProblem(t, refused, 507, 'insufficient_storage')
  t.match(refused.headers.get('retry-after'), /^[0-9]+$/)
  t.equal((await call('GET', `/accounts/${id}/voicemails`)).headers.get('x-total-count'), '2')
  free = 0
  t.equal((await call('DELETE', `/accounts/${id}/voicemails/${first.id}`)).status, 200)
  const ready = await call('GET', '/health/ready')
  isProblem(t, ready, 503, 'unavailable')
  t.match(ready.body.detail, /disk/, 'with the reason')
  t.strictSame(await files(), [])
})

t.test('while the service shuts down, what is under way is answered and what comes then is 503', async t => {
  let release = (): void => {}
  let begun = (): void => {}
  const hasBegun = new Promise<void>(resolve => { begun = resolve })
  const closing: Service = await startService(t, {
    meddle: ({ accountStore }) => {
      const { count } = accountStore
      accountStore.count = async () => {
        begun()
        await new Promise<void>(resolve => { release = resolve })
        return await count()
      }
    }
  })
  const connection = connectTo(t, closing.url)
  await connection.send(head('GET', '/accounts', { 'x-api-key': closing.adminKey }))
  await hasBegun
  const closed = closing.app.close()
  await until(async () => !closing.app.server.listening)
  await connection.send(head('GET', '/ping'))
  await until(async () => closing.log.some(line => line.includes('shutting_down')))
  release()
  t.equal((await connection.answer()).status, 200)
  const answer = asAnswer(await connection.answer())
  isProblem(t, answer, 503, 'shutting_down')
  t.equal(answer.headers.get('connection'), 'close')
  await closed
})

/** All TypeScript below a folder, as one text. */
async function readSources (path: string, isWanted: (name: string) => boolean): Promise<string> {
  const folder = new URL(path, import.meta.url)
  const names = (await readdir(folder, { recursive: true })).filter(isWanted)
  return (await Promise.all(names.map(async name => await readFile(new URL(name, folder), 'utf8')))).join('\n')
}

t.test('every code has its status, is told by something in src, and is asserted by some test', async t => {
  t.strictSame(Object.keys(STATUS_OF).sort(), [...ERROR_CODES].sort())
  const sources = await readSources('../../src/', name => name.endsWith('.ts') && name !== 'errors.ts')
  const tests = await readSources('../', name => name.endsWith('.test.ts'))
  for (const code of ERROR_CODES) {
    t.match(sources, `'${code}'`, `src tells ${code}`)
    t.match(tests, `'${code}'`, `a test asserts ${code}`)
  }
})

t.end()

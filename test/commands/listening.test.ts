import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { sample, type Json } from '../helper.js'
import { startProgram } from '../process.js'
import { until } from '../wire/connection.js'

const PUBLIC_URL = 'https://voicemail.example.org'

/** A folder whose path is short enough for a Unix socket in it. */
function shortFolder (t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'voicemaild-'))
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })
  return folder
}

/** The program on a Unix socket in its working folder. */
function start (t: Test, cwd: string, settings: Record<string, string> = {}) {
  const program = startProgram(t, { cwd, settings: { LISTEN: join(cwd, 'socket'), PUBLIC_URL, MIN_FREE_DISK: '0', ...settings } })
  return { ...program, listens: async () => { await until(async () => program.err().includes('Admin API key')) } }
}

async function ask (cwd: string, method: string, path: string, { headers = {}, body = '' }: { headers?: Record<string, string>, body?: string | Buffer } = {}) {
  const sent = request({ socketPath: join(cwd, 'socket'), method, path, headers, agent: false })
  sent.end(body)
  const [response] = await once(sent, 'response')
  return { status: response.statusCode, headers: response.headers, body: await text(response) }
}

for (const [trustProxy, address] of [['true', '192.0.2.7'], ['false', null]] as const) {
  t.test(`a voicemail comes and goes through a Unix socket; with TRUST_PROXY=${trustProxy} its listener's address is ${address}`, async t => {
    const cwd = shortFolder(t)
    const program = start(t, cwd, { TRUST_PROXY: trustProxy, AUTH_FAILURES_PER_MINUTE: '1' })
    await program.listens()
    t.match(program.err(), `voicemaild listens on ${join(cwd, 'socket')}\n`)
    t.equal(statSync(join(cwd, 'socket')).mode & 0o006, 0o006, 'a proxy of another user may connect')

    const key = (await readFile(join(cwd, 'storage', 'admin-api-key'), 'utf8')).trim()
    const headers = { 'x-api-key': key, 'content-type': 'application/json', 'x-forwarded-for': '192.0.2.7' }
    const post = async (path: string, body: object): Promise<Json> => JSON.parse((await ask(cwd, 'POST', path, { headers, body: JSON.stringify(body) })).body)
    const { id } = await post('/accounts', { sip_uri: 'sip:bob@sip.example.org' })
    const slot = await post(`/accounts/${id}/voicemails`, { sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' })
    t.ok(slot.upload_url.startsWith(`${PUBLIC_URL}/uploads/`))
    const audio = await sample('ok/pcm16-16k.wav')
    const { status, body } = await ask(cwd, 'PUT', new URL(slot.upload_url).pathname, { headers: { 'content-type': 'audio/wav', 'content-length': String(audio.length) }, body: audio })
    t.equal(status, 200)
    const download = await ask(cwd, 'GET', new URL(JSON.parse(body).download_url).pathname, { headers })
    t.match(download, { status: 200, headers: { 'content-length': String(audio.length) } })

    const events = async (): Promise<Json> => JSON.parse((await ask(cwd, 'GET', `/accounts/${id}/voicemails/${slot.id}/events`, { headers })).body)
    await until(async () => (await events()).length > 0)
    t.match(await events(), [{ kind: 'listened', address }])
    const badKey = { headers: { 'x-api-key': 'wrong', 'x-forwarded-for': '192.0.2.8' } }
    t.equal((await ask(cwd, 'GET', '/accounts', badKey)).status, 401)
    t.equal((await ask(cwd, 'GET', '/accounts', badKey)).status, 429, 'failed attempts are counted')

    program.child.kill('SIGTERM')
    t.equal(await program.ended, 0)
    t.notOk(existsSync(join(cwd, 'socket')), 'and the socket goes with it')
  })
}

t.test('the socket of a server that was killed is replaced, that of a living one and what is no socket is not', async t => {
  const cwd = shortFolder(t)
  writeFileSync(join(cwd, 'file'), 'kept')
  const killed = start(t, cwd)
  await killed.listens()
  killed.child.kill('SIGKILL')
  await killed.ended
  t.ok(existsSync(join(cwd, 'socket')))
  const next = start(t, cwd)
  await next.listens()
  t.match(await ask(cwd, 'GET', '/ping'), { status: 200, body: 'pong' })
  next.child.kill('SIGTERM')
  t.equal(await next.ended, 0)

  const other = createServer().listen(join(cwd, 'socket'))
  t.teardown(() => { other.close() })
  await once(other, 'listening')
  const refused = start(t, cwd)
  t.equal(await refused.ended, 1)
  t.equal(refused.err(), `voicemaild: LISTEN: cannot listen on ${join(cwd, 'socket')} (EADDRINUSE).\n`)
  t.ok(other.listening)
  t.ok(existsSync(join(cwd, 'socket')))

  const onFile = start(t, cwd, { LISTEN: join(cwd, 'file') })
  t.equal(await onFile.ended, 1)
  t.equal(onFile.err(), `voicemaild: LISTEN: cannot listen on ${join(cwd, 'file')} (EADDRINUSE).\n`)
  t.equal(await readFile(join(cwd, 'file'), 'utf8'), 'kept')
})

t.test('LISTEN wants to know the public URL, an absolute path, and no addresses to trust', async t => {
  const cwd = shortFolder(t)
  for (const [settings, code, line] of [
    [{ PUBLIC_URL: '' }, 1, 'PUBLIC_URL: expected the URL of the proxy in front of the Unix socket, found none.'],
    [{ LISTEN: 'socket' }, 2, 'LISTEN: expected an absolute path of at most 107 characters of ASCII without blanks, found "socket".'],
    [{ LISTEN: `/${'a'.repeat(107)}` }, 2, `LISTEN: expected an absolute path of at most 107 characters of ASCII without blanks, found "/${'a'.repeat(107)}".`],
    [{ TRUST_PROXY: '127.0.0.1' }, 2, 'TRUST_PROXY: expected true or false, because who comes through the Unix socket of LISTEN has no address, found "127.0.0.1".']
  ] as const) {
    const program = start(t, cwd, settings)
    t.equal(await program.ended, code)
    t.equal(program.err(), `voicemaild: ${line}\n`)
    t.notOk(existsSync(join(cwd, 'socket')))
  }
})

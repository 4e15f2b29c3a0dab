import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { connect as tlsConnect } from 'node:tls'
import { fileURLToPath } from 'node:url'
import fastify from 'fastify'
import t from 'tap'
import { runProgram } from '../../src/commands/program.js'
import { answerProblems } from '../../src/plugins/problems.js'
import { stopInOrder } from '../../src/plugins/stopping.js'
import { sample, startService, startTlsService, type Json, type Testing } from '../helper.js'
import { answerOf, begin, openSession, send } from '../wire/http2-client.js'

const audio = await sample('ok/pcm16-16k.wav')

interface Line { socket: Socket, text: () => string, until: (pattern: RegExp) => Promise<void>, closed: Promise<void> }

/** A connection on which a test sees every byte. */
function open (t: Testing, url: string): Line {
  const socket = connect({ host: '127.0.0.1', port: Number(new URL(url).port) })
  t.teardown(() => { socket.destroy() })
  let text = ''
  let wake = (): void => {}
  socket.on('data', chunk => {
    text += String(chunk)
    wake()
  })
  socket.on('error', () => {})
  const closed = new Promise<void>(resolve => {
    socket.on('close', () => {
      wake()
      resolve()
    })
  })
  return {
    socket,
    closed,
    text: () => text,
    until: async pattern => {
      while (!pattern.test(text)) {
        if (socket.destroyed) throw new Error(`closed after ${JSON.stringify(text)}`)
        await new Promise<void>(resolve => { wake = resolve })
      }
    }
  }
}

async function untilRefused (t: Testing, url: string): Promise<void> {
  for (;;) {
    const { socket } = open(t, url)
    const isRefused = await once(socket, 'connect').then(() => false, () => true)
    if (isRefused) return
    socket.destroy()
  }
}

async function untilFiles (folder: string, count: number): Promise<void> {
  while ((await readdir(join(folder, 'incoming'))).length !== count) await new Promise(resolve => { setTimeout(resolve, 5) })
}

const putHead = (path: string): string => `PUT ${path} HTTP/1.1\r\nhost: x\r\ncontent-length: ${audio.length}\r\n\r\n`
const PING = 'GET /ping HTTP/1.1\r\nhost: x\r\n\r\n'

t.test('what is under way finishes while the service stops; what comes after on their connections is 503 and the end', async t => {
  const { app, addUser, openSlot, url, dataFolder, data, close, files } = await startService(t, { looksInside: true })
  const { id } = await addUser()
  const [slot, other] = [await openSlot(id), await openSlot(id)]
  const idle = open(t, url)
  idle.socket.write(PING)
  await idle.until(/pong/)
  const begun = once(app.server, 'request')
  const json = open(t, url)
  const account = JSON.stringify({ sip_uri: 'sip:carol@sip.example.org' })
  json.socket.write(`POST /accounts HTTP/1.1\r\nhost: x\r\nx-api-key: ${data.keys.adminKey}\r\ncontent-type: application/json\r\ncontent-length: ${account.length}\r\n\r\n${account.slice(0, 10)}`)
  await begun
  const upload = open(t, url)
  upload.socket.write(putHead(slot.path))
  upload.socket.write(audio.subarray(0, 1000))
  await untilFiles(dataFolder, 1)

  const closed = app.close()
  await untilRefused(t, url)
  await idle.closed
  t.pass('nobody gets in, and idle connections are closed')
  upload.socket.write(audio.subarray(1000))
  upload.socket.write(PING + putHead(other.path))
  json.socket.write(account.slice(10))
  await upload.closed
  const answers = upload.text().split(/(?=HTTP\/1\.1 \d)/)
  t.match(answers[0], /^HTTP\/1\.1 200 OK\r\n[^]*"status":"stored"/)
  t.match(answers[1], /^HTTP\/1\.1 503 Service Unavailable\r\n/)
  t.match(answers[1], /\r\nconnection: close\r\n/i)
  t.match(answers[1], /\r\nretry-after: \d+\r\n/i)
  t.match(answers[1], /"code":"shutting_down"/)
  t.equal(answers.length, 2, 'and nothing after it is looked at')
  t.match((await data.voicemailStore.find(other.id)), { uploadedAtMs: null, failureCode: null })
  await json.closed
  t.match(json.text(), /^HTTP\/1\.1 201 Created\r\n/, 'JSON under way too')
  await closed
  t.match(await data.voicemailStore.find(slot.id), { fileBytes: audio.length })
  t.equal((await files()).length, 1)
  await close()
  t.strictSame((await readdir(dataFolder)).filter(name => /-(wal|shm|journal)$/.test(name)), [], 'the database is folded up')
})

t.test('who was connected before the service stopped, and had not asked yet, is served; a connection on which nothing comes is ended', async t => {
  const { app, addUser, openSlot, url, data } = await startService(t, { looksInside: true })
  const { id } = await addUser()
  const slot = await openSlot(id)
  const accepted = new Promise<void>(resolve => {
    let count = 0
    app.server.on('connection', () => { if (++count === 2) resolve() })
  })
  const late = open(t, url)
  const unused = open(t, url)
  await accepted
  const closed = app.close()
  await untilRefused(t, url)
  late.socket.write(putHead(slot.path))
  late.socket.write(audio)
  late.socket.write(PING)
  await late.closed
  t.match(late.text(), /^HTTP\/1\.1 200 OK\r\n[^]*connection: close\r\n[^]*"status":"stored"/i)
  t.equal(late.text().split('HTTP/1.1 ').length, 2, 'once')
  t.match(await data.voicemailStore.find(slot.id), { fileBytes: audio.length })
  await closed
  await unused.closed
  t.equal(unused.text(), '')
})

t.test('what takes longer than STOP_TIMEOUT is cut off, and closing waits for what that leaves to do', async t => {
  const { app, addUser, openSlot, url, dataFolder, data, files } = await startService(t, { settings: { STOP_TIMEOUT: '1' }, looksInside: true })
  const { id } = await addUser()
  const slot = await openSlot(id)
  const endless = open(t, url)
  endless.socket.write(putHead(slot.path))
  endless.socket.write(audio.subarray(0, 1000))
  await untilFiles(dataFolder, 1)
  const silent = open(t, url)
  silent.socket.write('GET /ping HT')
  await app.close()
  await Promise.all([endless.closed, silent.closed])
  t.equal(endless.text(), '', 'without an answer')
  t.strictSame(await files(), [], 'what it had sent is gone by the time that the service is closed')
  t.match(await data.voicemailStore.find(slot.id), { uploadedAtMs: null, failureCode: 'body_incomplete' })
})

t.test('an app that never listened closes at once, and leaves no timer', async t => {
  const app = fastify()
  answerProblems(app)
  let isSettled = false
  stopInOrder(app, { timeoutMs: 3600_000, settled: async () => { isSettled = true } })
  await app.ready()
  const before = process.getActiveResourcesInfo().filter(name => name === 'Timeout').length
  await app.close()
  t.ok(isSettled)
  t.equal(process.getActiveResourcesInfo().filter(name => name === 'Timeout').length, before)
})

t.test('the process: one server a folder, commands beside it, and SIGTERM ends it with code 0 whatever hangs on it', async t => {
  const dataFolder = join(t.testdir(), 'data')
  const env = { PATH: process.env['PATH'], DATA_DIR: dataFolder, PORT: '0', MIN_FREE_DISK: '0', STOP_TIMEOUT: '1' }
  const child = spawn(process.execPath, [`--import=${import.meta.resolve('tsx')}`, fileURLToPath(new URL('../../src/main.ts', import.meta.url)), 'serve'], {
    env, stdio: ['ignore', 'ignore', 'pipe']
  })
  const exited = once(child, 'exit')
  t.teardown(() => { child.kill('SIGKILL') })
  let url = ''
  for await (const line of createInterface({ input: child.stderr })) {
    const [, found] = /listens on (\S+)/.exec(line) ?? []
    if (found === undefined) continue
    url = found
    break
  }
  child.stderr.resume()
  const run = async (...args: string[]): Promise<{ code: number, said: string[] }> => {
    const said: string[] = []
    const tell = (line: string): void => { said.push(line) }
    return { code: await runProgram({ args, env, clock: Date.now, output: { print: tell, tell } }), said }
  }
  t.strictSame(await run('serve'), { code: 1, said: [`voicemaild: Another voicemaild serves ${dataFolder} already.`] })
  for (const command of [['check'], ['backup', join(dataFolder, '..', 'backup')], ['sweep'], ['account', 'add', 'bob@sip.example.org']]) {
    t.match(await run(...command), { code: 0 }, `${command[0]} works beside it`)
  }

  const key = (await readFile(join(dataFolder, 'admin-api-key'), 'utf8')).trim()
  const opened = await fetch(`${url}/accounts/1/voicemails`, {
    method: 'POST', headers: { 'x-api-key': key, 'content-type': 'application/json', connection: 'close' }, body: JSON.stringify({ sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' })
  })
  const slot: Json = await opened.json()
  const endless = open(t, url)
  endless.socket.write(putHead(new URL(slot.upload_url).pathname))
  endless.socket.write(audio.subarray(0, 1000))
  const idle = open(t, url)
  idle.socket.write(PING)
  await idle.until(/pong/)
  const unused = open(t, url)
  await untilFiles(dataFolder, 1)
  child.kill('SIGTERM')
  t.strictSame(await exited, [0, null])
  await Promise.all([endless.closed, idle.closed, unused.closed])
  t.strictSame(await readdir(join(dataFolder, 'incoming')), [])
  t.strictSame((await readdir(dataFolder)).filter(name => /-(wal|shm|journal)$/.test(name)), [], 'the database is folded up')
  t.match(await run('check', '--deep'), { code: 0 })
})

t.test('over HTTP/2 clients are told to go, what is under way finishes, and then their connections end', async t => {
  const service = await startTlsService(t, { looksInside: true })
  const { app, addUser, openSlot, data, files } = service
  const { id } = await addUser()
  const slot = await openSlot(id)
  const [idle, busy] = [await openSession(t, service), await openSession(t, service)]
  const [idleGone, busyGone, idleClosed, busyClosed] = [once(idle, 'goaway'), once(busy, 'goaway'), once(idle, 'close'), once(busy, 'close')]
  t.match(await send(idle, 'GET', '/ping'), { status: 200 })
  const upload = begin(busy, 'PUT', slot.path, { 'content-length': audio.length })
  const answer = answerOf(upload)
  upload.write(audio.subarray(0, 1000))
  await untilFiles(service.dataFolder, 1)
  const unused = tlsConnect({ host: '127.0.0.1', port: Number(new URL(service.url).port), ca: service.ca })
  t.teardown(() => { unused.destroy() })
  await once(unused, 'secureConnect')
  const unusedClosed = once(unused, 'close')

  const closed = app.close()
  await idleGone
  await idleClosed
  t.equal((await busyGone)[0], 0, 'NO_ERROR')
  upload.end(audio.subarray(1000))
  t.match(await answer, { status: 200, json: { status: 'stored' } })
  await busyClosed
  await unusedClosed
  await closed
  t.match(await data.voicemailStore.find(slot.id), { fileBytes: audio.length })
  t.equal((await files()).length, 1)
})

t.test('over HTTP/2 too what takes longer than STOP_TIMEOUT is cut off', async t => {
  const service = await startTlsService(t, { settings: { STOP_TIMEOUT: '1' }, looksInside: true })
  const { app, addUser, openSlot, data, files } = service
  const { id } = await addUser()
  const slot = await openSlot(id)
  const session = await openSession(t, service)
  const closed = once(session, 'close')
  const upload = begin(session, 'PUT', slot.path, { 'content-length': audio.length })
  upload.write(audio.subarray(0, 1000))
  await untilFiles(service.dataFolder, 1)
  // Its handshake never ends.
  const silent = open(t, service.url)
  await once(silent.socket, 'connect')
  await app.close()
  await Promise.all([closed, silent.closed])
  t.strictSame(await files(), [])
  t.match(await data.voicemailStore.find(slot.id), { uploadedAtMs: null, failureCode: 'body_incomplete' })
})

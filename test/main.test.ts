import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { once } from 'node:events'
import { join } from 'node:path'
import t from 'tap'
import { sample, type Json, type Testing } from './helper.js'
import { buildProgram, commandOf, startProgram, startServer, type Server } from './process.js'
import { connectTo, head, until } from './wire/connection.js'

/** What is tested here is what is installed. */
const main = await buildProgram(t.testdir())

/** Settings that leave a test machine alone. */
const QUIET = { PORT: '0', MIN_FREE_DISK: '0' }

const filesIn = async (folder: string): Promise<string[]> => (await readdir(folder, { recursive: true, withFileTypes: true }))
  .filter(entry => entry.isFile()).map(entry => entry.name)

async function asAdmin (url: string, folder: string, method: string, path: string, body?: object): Promise<Json> {
  const key = (await readFile(join(folder, 'admin-api-key'), 'utf8')).trim()
  const response = await fetch(url + path, {
    method,
    headers: { 'x-api-key': key, ...body !== undefined && { 'content-type': 'application/json' } },
    ...body !== undefined && { body: JSON.stringify(body) }
  })
  const answer: Json = await response.json()
  return { status: response.status, ...answer }
}

async function openSlot (url: string, folder: string, user: string): Promise<Json> {
  const { id } = await asAdmin(url, folder, 'POST', '/accounts', { sip_uri: `sip:${user}@sip.example.org` })
  return { account: id, ...await asAdmin(url, folder, 'POST', `/accounts/${id}/voicemails`, { sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' }) }
}

/** Sends half of an upload, and returns when it has reached the disk's folder; `finish` sends the other half. */
async function halfUpload (t: Testing, { url }: Server, folder: string, slot: Json) {
  const audio = await sample('ok/pcm16-16k.wav')
  const connection = connectTo(t, url)
  await connection.send(head('PUT', new URL(slot.upload_url).pathname, { 'content-type': 'audio/wav', 'content-length': audio.length }), audio.subarray(0, audio.length / 2))
  await until(async () => (await filesIn(join(folder, 'incoming'))).length === 1)
  return { ...connection, finish: async () => { await connection.send(audio.subarray(audio.length / 2)) } }
}

async function isRefused (url: string): Promise<boolean> {
  return await fetch(`${url}/ping`, { headers: { connection: 'close' } }).then(() => false, () => true)
}

t.test('it starts without configuration in an empty folder, and says where it listens, where the data and the admin key are', async t => {
  const cwd = t.testdir()
  const server = await startServer(t, { cwd, main, settings: { PORT: '0' } })
  t.match(server.url, /^http:\/\/127\.0\.0\.1:\d+$/)
  t.strictSame(server.err().trimEnd().split('\n'), [
    `voicemaild listens on ${server.url}`, `Data: ${join(cwd, 'storage')}`, `Admin API key: ${join(cwd, 'storage', 'admin-api-key')}`
  ])
  t.equal(await (await fetch(`${server.url}/ping`)).text(), 'pong')
  t.match(await asAdmin(server.url, join(cwd, 'storage'), 'POST', '/accounts', { sip_uri: 'sip:bob@sip.example.org' }), { status: 201, id: 1 }, 'the key opens')
  t.strictSame(await readdir(cwd), ['storage'], 'nothing else is made')
  for (const line of server.out().trimEnd().split('\n')) t.match(JSON.parse(line), { level: Number, msg: String }, 'standard output has log lines only')

  const second = startProgram(t, { cwd, main, settings: { PORT: '0' } })
  t.equal(await second.ended, 1, 'a second server on the same data is refused')
  t.equal(second.err(), `voicemaild: Another voicemaild serves ${join(cwd, 'storage')} already.\n`)
  t.equal(second.out(), '')

  const command = startProgram(t, { cwd, main, args: ['account', 'list', '--json'] })
  t.equal(await command.ended, 0, 'but a command works beside it')
  t.match(JSON.parse(command.out()), [{ id: 1 }])
  t.equal(command.err(), '')

  t.equal(await (await fetch(`${server.url}/ping`)).text(), 'pong', 'the first one goes on')
  t.equal(await server.stop('SIGTERM'), 0)
})

t.test('eight threads wait for the disk, unless the operator wants another number', { skip: !existsSync('/proc/self/task') }, async t => {
  const cwd = t.testdir()
  const threadsWith = async (size: string): Promise<number> => {
    // Without what a test runner has loaded into every program, which uses the pool before this one does.
    const child = spawn('env', ['-u', 'NODE_OPTIONS', ...commandOf(main), 'serve'], {
      cwd, env: { ...process.env, ...QUIET, UV_THREADPOOL_SIZE: size }, stdio: ['ignore', 'ignore', 'pipe']
    })
    const ended = once(child, 'exit')
    for await (const text of child.stderr) if (String(text).includes('Admin API key')) break
    const threads = await readdir(`/proc/${child.pid}/task`)
    child.kill()
    await ended
    return threads.length
  }
  // Node has others, which come and go: with this many it does not matter.
  const [byDefault, asWanted] = [await threadsWith(''), await threadsWith('100')]
  t.ok(asWanted - byDefault >= 88 && asWanted - byDefault <= 95, `${byDefault} threads, and ${asWanted}`)
})

t.test('what is loaded when it is wanted is there', async t => {
  const server = await startServer(t, { cwd: t.testdir(), main, settings: QUIET })
  for (const path of ['/docs', '/docs/static/swagger-ui-bundle.js', '/openapi.json', '/metrics']) t.equal((await fetch(server.url + path)).status, 200, path)
  await writeFile(join(t.testdirName, 'accounts.csv'), 'sip:carol@sip.example.org\n')
  const program = startProgram(t, { cwd: t.testdirName, main, args: ['account', 'import', 'accounts.csv'] })
  t.equal(await program.ended, 0)
  t.equal(program.out(), '1 added, 0 known, 0 refused\n')
})

t.test('a wrong setting, an unknown command and a taken port end the start with one line', async t => {
  const folder = t.testdir({ 'a-file': 'kept' })
  const taken = createServer().listen(0, '127.0.0.1')
  t.teardown(() => taken.close())
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo
  for (const [args, settings, code, line] of [
    [['serve'], { PORT: '80a' }, 2, /^voicemaild: PORT: expected a whole number from 0 to 65535, found "80a"\.\n$/],
    [['serve', '--prot=1'], {}, 2, /^voicemaild: unknown option '--prot=1', expected one of --help\n$/],
    [['serve'], { DATA_DIR: 'a-file', ...QUIET }, 1, /^voicemaild: DATA_DIR: expected a folder that can be written, found .*a-file \(EEXIST.*\)\.\n$/],
    [['serve'], { ...QUIET, PORT: String(port) }, 1, new RegExp(`^voicemaild: HOST and PORT: cannot listen on 127\\.0\\.0\\.1:${port} \\(EADDRINUSE\\)\\.\n$`)]
  ] as const) {
    const program = startProgram(t, { cwd: folder, main, args: [...args], settings })
    t.equal(await program.ended, code, line.source)
    t.match(program.err(), line)
    t.equal(program.out(), '')
    t.strictSame((await readdir(folder)).includes('storage'), 'PORT' in settings && settings.PORT === String(port), 'a data folder is made by what can be understood only')
  }
  t.equal(await readFile(join(folder, 'a-file'), 'utf8'), 'kept')
})

t.test('a reader who goes away before the end gets no stack trace', async t => {
  const program = startProgram(t, { cwd: t.testdir(), main, args: ['account', 'list'] })
  program.child.stdout?.destroy()
  await program.ended
  t.equal(program.err(), '')
})

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  t.test(`after ${signal} an upload under way is finished, whatever else is connected, and the exit code is 0`, async t => {
    const cwd = t.testdir()
    const folder = join(cwd, 'elsewhere', 'data')
    await writeFile(join(cwd, 'settings'), 'DATA_DIR=elsewhere/data\nLOG_LEVEL=warn\nPORT=1\n')
    const server = await startServer(t, { cwd, main, args: ['--env-file', 'settings', 'serve'], settings: QUIET })
    t.match(server.err(), `Data: ${folder}\n`, 'settings from a file hold where the environment has none')
    t.equal(server.out(), '')

    const slot = await openSlot(server.url, folder, 'bob')
    const upload = await halfUpload(t, server, folder, slot)
    const idle = connectTo(t, server.url)
    await idle.send(head('GET', '/ping'))
    t.equal((await idle.answer()).body, 'pong')
    const unused = connectTo(t, server.url)
    await once(unused.socket, 'connect')

    server.child.kill(signal)
    t.equal(await idle.closed, 'end', 'a connection that waits is closed')
    t.match(await unused.closed, /^(end|ECONNRESET)$/, 'so is one on which nothing ever came')
    await until(async () => await isRefused(server.url))
    t.equal(server.child.exitCode, null, 'the process is still there')
    await upload.finish()
    const answer = await upload.answer()
    t.equal(answer.status, 200)
    t.match(JSON.parse(answer.body), { id: slot.id, status: 'stored', duration: 6.712 })
    t.equal(await server.ended, 0)
    t.equal(server.err().split('\n').length, 4, 'and no more is said')
    t.strictSame(await filesIn(join(folder, 'incoming')), [])
    t.equal((await filesIn(join(folder, 'audio'))).length, 1)

    for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
      const { mode } = await stat(join(entry.parentPath, entry.name))
      t.equal(mode & 0o777, entry.isDirectory() ? 0o700 : 0o600, `${entry.name} is its owner's alone`)
    }
    t.equal((await stat(folder)).mode & 0o777, 0o700)
  })
}

t.test('after kill -9 in the middle of an upload, the next start takes away what is left of it, and the slot can be filled', async t => {
  const cwd = t.testdir()
  const folder = join(cwd, 'storage')
  await mkdir(folder)
  const killed = await startServer(t, { cwd, main, settings: QUIET })
  const slot = await openSlot(killed.url, folder, 'bob')
  const half = await halfUpload(t, killed, folder, slot)
  t.equal(await killed.stop('SIGKILL'), 'SIGKILL')
  await half.closed
  t.equal((await filesIn(join(folder, 'incoming'))).length, 1, 'a half-written file was left')

  const server = await startServer(t, { cwd, main, settings: QUIET })
  await until(async () => server.err().split('\n').length > 4)
  t.match(server.err(), /^Ended what was cut off: 1 uploads, 0 deletions\n$/m)
  t.strictSame(await filesIn(join(folder, 'incoming')), [])
  t.strictSame(await filesIn(join(folder, 'audio')), [])
  const path = `/accounts/${slot.account}/voicemails/${slot.id}`
  t.match(await asAdmin(server.url, folder, 'GET', path), { status: 'pending', get_url: null, file_size: null, sha256: null })

  const again = await halfUpload(t, server, folder, slot)
  await again.finish()
  t.equal((await again.answer()).status, 200, 'the upload URL is still good')
  const { status, download_url: downloadUrl } = await asAdmin(server.url, folder, 'GET', path)
  t.equal(status, 'stored')
  const heard = Buffer.from(await (await fetch(downloadUrl)).arrayBuffer())
  t.ok(heard.equals(await sample('ok/pcm16-16k.wav')), 'and every byte is there')

  const { upload_url: other } = await asAdmin(server.url, folder, 'POST', `/accounts/${slot.account}/voicemails`, { sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' })
  await halfUpload(t, server, folder, { upload_url: other })
  server.child.kill('SIGTERM')
  await until(async () => await isRefused(server.url))
  t.equal(await server.stop('SIGINT'), 'SIGINT', 'a second signal does not wait for the upload')
})

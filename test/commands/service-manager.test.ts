import { execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { inheritedSocket } from '../../src/commands/service-manager.js'
import { makeCertificate } from '../certificates.js'
import { sample, type Json } from '../helper.js'
import { buildProgram } from '../process.js'
import { connectTo, head, until } from '../wire/connection.js'

const main = await buildProgram(t.testdir())
const { certFile, keyFile } = await makeCertificate(t.testdirName)
const deploy = (name: string): string => fileURLToPath(new URL(`../../deploy/${name}`, import.meta.url))

/** The program, started as systemd starts it, with so many sockets; `said` are the lines of the manager so far. */
function manage (t: Test, sockets: number, settings: Record<string, string> = {}) {
  const dataFolder = join(t.testdir(), 'data')
  const child = spawn('python3', [fileURLToPath(new URL('service-manager.py', import.meta.url)), String(sockets), process.execPath, main, 'serve'], {
    env: { ...process.env, DATA_DIR: dataFolder, MIN_FREE_DISK: '0', PORT: '1', ...settings }, stdio: ['pipe', 'pipe', 'pipe']
  })
  t.teardown(() => { child.stdin.end() })
  const said: string[] = []
  let errors = ''
  let wake = (): void => {}
  createInterface(child.stdout).on('line', line => {
    said.push(line)
    wake()
  })
  child.stderr.on('data', text => { errors += String(text) })
  child.on('close', () => { wake() })
  return {
    dataFolder,
    said,
    errors: () => errors,
    count: (pattern: RegExp) => said.filter(line => pattern.test(line)).length,
    restart: () => { child.stdin.write('restart\n') },
    /** Resolves with what the n-th line that matches holds. */
    line: async (pattern: RegExp, n = 1): Promise<string> => {
      for (;;) {
        const found = said.flatMap(line => pattern.exec(line)?.slice(0, 2) ?? [])
        const value = found[2 * n - 1] ?? found[2 * n - 2]
        if (value !== undefined && found.length >= 2 * n - 1) return value
        if (child.exitCode !== null) throw new Error(`The manager ended after ${said.join(', ')}: ${errors}`)
        await new Promise<void>(resolve => { wake = resolve })
      }
    }
  }
}

t.test('systemd is told when the port is open, that the event loop turns, and when the end begins', async t => {
  const { dataFolder, line, said, count, restart } = manage(t, 1)
  const url = `http://127.0.0.1:${await line(/^port (\d+)/)}`
  await line(/^told (READY=1)/)
  t.equal(await (await fetch(`${url}/ping`)).text(), 'pong', 'it is open then')
  await line(/^told (WATCHDOG=1)/, 3)
  t.equal(count(/^told STOPPING=1/), 0)

  const key = (await readFile(join(dataFolder, 'admin-api-key'), 'utf8')).trim()
  const post = async (path: string, body: object): Promise<Json> =>
    await (await fetch(url + path, { method: 'POST', headers: { 'x-api-key': key, 'content-type': 'application/json' }, body: JSON.stringify(body) })).json()
  const { id } = await post('/accounts', { sip_uri: 'sip:bob@sip.example.org' })
  const slot = await post(`/accounts/${id}/voicemails`, { sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' })
  const audio = await sample('ok/pcm16-16k.wav')
  const upload = connectTo(t, url)
  await upload.send(head('PUT', new URL(slot.upload_url).pathname, { 'content-type': 'audio/wav', 'content-length': audio.length }), audio.subarray(0, 1000))
  await until(async () => existsSync(join(dataFolder, 'incoming')))

  restart()
  await line(/^told (STOPPING=1)/)
  t.equal(count(/^ended/), 0, 'and an upload under way keeps it')
  const fedBefore = count(/^told WATCHDOG=1/)
  await line(/^told (WATCHDOG=1)/, fedBefore + 2)
  await upload.send(audio.subarray(1000))
  t.match(await upload.answer(), { status: 200 })
  t.equal(await line(/^ended (-?\d+)/), '0')
  t.ok(said.indexOf('told READY=1') > said.findIndex(each => each.startsWith('started')))
})

t.test('a restart refuses nobody: systemd holds the socket, and who comes meanwhile waits', async t => {
  const { line, restart } = manage(t, 1)
  const url = `http://127.0.0.1:${await line(/^port (\d+)/)}`
  const answers: string[] = []
  const over = new AbortController()
  const asking = (async () => {
    while (!over.signal.aborted) {
      const response = await fetch(`${url}/ping`, { headers: { connection: 'close' } })
      answers.push(await response.text())
    }
  })()
  for (let n = 1; n <= 3; n++) {
    await line(/^told (READY=1)/, n)
    const answered = answers.length
    await until(async () => answers.length > answered)
    restart()
    t.equal(await line(/^ended (-?\d+)/, n), '0')
  }
  await line(/^told (READY=1)/, 4)
  over.abort()
  await asking
  t.strictSame([...new Set(answers)], ['pong'], `${answers.length} answers`)
})

t.test('a socket that systemd holds speaks TLS where there is a certificate', async t => {
  const { line } = manage(t, 1, { TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile })
  const port = await line(/^port (\d+)/)
  await line(/^told (READY=1)/)
  const { stdout } = await promisify(execFile)('curl', ['-sS', '--cacert', certFile, '-w', ' HTTP/%{http_version}', `https://localhost:${port}/ping`])
  t.equal(stdout, 'pong HTTP/2')
})

t.test('several sockets are refused with one line', async t => {
  const { line, errors } = manage(t, 2)
  t.equal(await line(/^ended (-?\d+)/), '1')
  t.equal(errors(), 'voicemaild: LISTEN_FDS: expected one socket, found 2.\n')
})

t.test('sockets that were meant for another process are not taken', async t => {
  t.equal(inheritedSocket({ LISTEN_PID: String(process.pid), LISTEN_FDS: '1' }), 3)
  t.equal(inheritedSocket({ LISTEN_PID: String(process.ppid), LISTEN_FDS: '1' }), undefined)
  t.equal(inheritedSocket({ LISTEN_PID: String(process.pid), LISTEN_FDS: '0' }), undefined)
  t.equal(inheritedSocket({}), undefined)
})

t.test('the units are sound, and what they leave open counts under 2.0 of 10', async t => {
  const folder = t.testdir()
  await mkdir(join(folder, 'units'))
  const unit = (await readFile(deploy('voicemaild.service'), 'utf8')).replace('/usr/bin/voicemaild', process.execPath).replace('man:voicemaild(8)', 'man:true(1)')
  await writeFile(join(folder, 'units', 'voicemaild.service'), unit)
  await writeFile(join(folder, 'units', 'voicemaild.socket'), await readFile(deploy('voicemaild.socket')))
  const analyze = async (...args: string[]) => await promisify(execFile)('systemd-analyze', args, { cwd: folder })
  const { stderr } = await analyze('verify', '--man=no', 'units/voicemaild.service', 'units/voicemaild.socket')
  t.notMatch(stderr, 'voicemaild.')
  const { stdout } = await analyze('security', '--offline=true', '--no-pager', 'units/voicemaild.service')
  const [, exposure] = /Overall exposure level for voicemaild.service: ([\d.]+)/.exec(stdout) ?? []
  t.ok(Number(exposure) < 2, `${exposure}`)
  t.ok(Number(exposure) > 0)
})

import { existsSync } from 'node:fs'
import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseEnv } from 'node:util'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { Settings } from '../../src/config.js'
import { sample, type Json } from '../helper.js'
import { CACHE, command, CONFIG, DATA, dpkg, modeOf, run, serve, takeMachine, UNIT, WANTED } from './machine.js'

/** Of a whole machine's life with the package, in this order. */

const { deb, folder: newer } = await takeMachine(t)

t.test('lintian finds nothing to say', async t => {
  const { stdout } = await run('lintian', ['--allow-root', '--fail-on', 'error,warning', deb])
  t.equal(stdout, '')
})

t.test('it is installed, with a user, private folders, and settings that only the service and root read', async t => {
  await dpkg('--install', deb)
  t.match((await run('getent', ['passwd', 'voicemaild'])).stdout, /:\/nonexistent:\/usr\/sbin\/nologin$/m)
  t.equal(await modeOf(CONFIG), '640 root:voicemaild')
  for (const folder of [DATA, CACHE]) t.equal(await modeOf(folder), '700 voicemaild:voicemaild', folder)
  t.ok(existsSync(WANTED), 'systemd will start it')
  const { stdout: unfit } = await run('dpkg', ['--verify', 'voicemaild'])
  // A machine may be set to install no documentation.
  t.strictSame(unfit.split('\n').filter(line => !/^$|^missing +\/usr\/share\/(doc|man|lintian)\//.test(line)), [])
  t.strictSame({ ...parseEnv(await readFile(CONFIG, 'utf8')) }, { DATA_DIR: DATA }, 'the file sets nothing else')
  const text = await readFile(CONFIG, 'utf8')
  t.strictSame([...text.matchAll(/^#?([A-Z_]+)=/gm)].map(([, name]) => name), Object.keys(Settings.properties), 'but tells of every setting')
  t.match((await run('voicemaild', ['--version'])).stdout, /^voicemaild \d/)
})

t.test('the manual has every setting and every command', async t => {
  await run('dpkg-deb', ['--extract', deb, newer])
  const page = gunzipSync(await readFile(join(newer, 'usr/share/man/man8/voicemaild.8.gz')))
  const manual = page.toString().replaceAll('\\-', '-')
  for (const name of Object.keys(Settings.properties)) t.match(manual, name)
  for (const [, words = ''] of (await readFile('README.md', 'utf8')).matchAll(/^\| `voicemaild ([a-z-]+(?: [a-z]+)?)/gm)) t.match(manual, new RegExp(`^\\.SS ${words}( |$)`, 'm'), words)
})

let before: Json
t.test('the service\'s user runs commands and the server, and keeps a voicemail', async t => {
  await command('account', 'add', 'sip:bob@sip.example.org')
  const { key } = await command('key', 'add', '--name', 'test', '--account', '1')
  const server = await serve(t)
  const headers = { 'x-api-key': key, 'content-type': 'application/json' }
  const ask = async (path: string, init: RequestInit = {}): Promise<Json> => await (await fetch(server.url + path, { headers, ...init })).json()
  const slot = await ask('/accounts/me/voicemails', { method: 'POST', body: '{"sip_from":"sip:alice@sip.example.org","content_type":"audio/wav"}' })
  const audio = await sample('ok/pcm16-16k.wav')
  const stored = await fetch(slot.upload_url, { method: 'PUT', headers: { 'content-type': 'audio/wav' }, body: new Uint8Array(audio) })
  t.equal(stored.status, 200)
  t.equal((await fetch(`${server.url}/docs`)).status, 200)
  before = await ask('/accounts/me/voicemails')
  t.equal(before.length, 1)
  t.equal(await server.stop('SIGTERM'), 0)
  t.match(await readdir(join(CACHE, 'files')), [/^[0-9a-f]{64}$/, /^[0-9a-f]{64}$/, /^[0-9a-f]{64}$/], 'what it unpacked is where systemd wants it')
  t.match(await readdir(DATA), ['admin-api-key', 'audio'], 'and not among the data')
  const { stdout: uid } = await run('id', ['-u', 'voicemaild'])
  t.notOk(existsSync(join(tmpdir(), `voicemaild-${uid.trim()}`)), 'nor among the temporary files')
})

t.test('an upgrade keeps data and changed settings', async t => {
  await writeFile(CONFIG, `${await readFile(CONFIG, 'utf8')}\nLOG_LEVEL=warn\n`)
  const version = (await run('dpkg-deb', ['-f', deb, 'Version'])).stdout.trim()
  await run(process.execPath, ['--import=tsx', 'build/deb.ts', 'dist', newer, `${version}+upgrade`])
  const [upgrade = ''] = (await readdir(newer)).filter(name => name.endsWith('.deb'))
  await dpkg('--install', join(newer, upgrade))
  t.match((await run('dpkg-query', ['-W', 'voicemaild'])).stdout, '+upgrade')
  t.match(await readFile(CONFIG, 'utf8'), /^LOG_LEVEL=warn$/m)
  t.equal(await modeOf(CONFIG), '640 root:voicemaild')
  t.match(await command('account', 'list'), [{ id: 1, voicemails: { total: 1 } }])
  t.match(await command('check', '--deep'), { findings: [] })
  const server = await serve(t)
  t.equal((await fetch(`${server.url}/health/ready`)).status, 200)
  t.equal(await server.stop('SIGTERM'), 0)
  t.equal(server.out(), '', 'the changed setting holds')
})

t.test('removing it keeps settings and data; purging it keeps the voicemails, and says so', async t => {
  await dpkg('--remove', 'voicemaild')
  t.notOk(existsSync('/usr/bin/voicemaild'))
  t.ok(existsSync(CONFIG))
  t.match(await readdir(DATA), ['admin-api-key', 'audio'])
  t.match(await dpkg('--purge', 'voicemaild'), 'the voicemails in /var/lib/voicemaild are left where they are')
  for (const path of ['/etc/voicemaild', CACHE, WANTED, UNIT, '/usr/share/doc/voicemaild']) t.notOk(existsSync(path), path)
  t.equal((await stat(DATA)).mode & 0o777, 0o700)
  t.equal((await readdir(join(DATA, 'audio'), { recursive: true, withFileTypes: true })).filter(entry => entry.isFile()).length, 1)
})

t.test('what is installed again finds them', async t => {
  await dpkg('--install', deb)
  t.match(await command('account', 'list'), [{ id: 1, voicemails: { total: 1 } }])
  await dpkg('--purge', 'voicemaild')
})

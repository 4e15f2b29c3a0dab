import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseEnv, promisify } from 'node:util'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { Settings } from '../../src/config.js'
import { sample, type Json } from '../helper.js'
import { startServer, type Server } from '../process.js'

/** Of a whole machine's life with the package, in this order; root's, on a machine that has no voicemaild. */

const run = promisify(execFile)
const CONFIG = '/etc/voicemaild/voicemaild.env'
const DATA = '/var/lib/voicemaild'
const CACHE = '/var/cache/voicemaild'
const UNIT = '/lib/systemd/system/voicemaild.service'
const WANTED = '/etc/systemd/system/multi-user.target.wants/voicemaild.service'

for (const path of [CONFIG, DATA, CACHE, '/usr/bin/voicemaild']) if (existsSync(path)) throw new Error(`${path} is there: this test wants a machine without voicemaild.`)

const [deb = ''] = (await readdir('dist')).filter(name => name.endsWith('.deb')).map(name => join('dist', name))
const newer = await mkdtemp(join(tmpdir(), 'voicemaild-newer-'))
t.teardown(async () => {
  await run('dpkg', ['--purge', 'voicemaild']).catch(() => {})
  await run('userdel', ['voicemaild']).catch(() => {})
  for (const folder of [DATA, CACHE, newer]) await rm(folder, { recursive: true, force: true })
})

const dpkg = async (...args: string[]): Promise<string> => {
  const { stdout, stderr } = await run('dpkg', ['--force-confdef', '--force-confold', ...args], { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } })
  return stdout + stderr
}
const asService = ['-u', 'voicemaild', '--', 'voicemaild', '--env-file', CONFIG]
const command = async (...args: string[]): Promise<Json> => JSON.parse((await run('runuser', [...asService, ...args, '--json'], { cwd: '/' })).stdout)
const modeOf = async (path: string): Promise<string> => (await run('stat', ['-c', '%a %U:%G', path])).stdout.trim()

/** As systemd does it: the command and the environment of the unit, its user, its folders. */
async function serve (t: { teardown: (run: () => unknown) => void }): Promise<Server> {
  const unit = await readFile(UNIT, 'utf8')
  const value = (name: string): string => new RegExp(`^${name}=-?(.*)$`, 'm').exec(unit)?.[1] ?? ''
  const [command = '', ...args] = value('ExecStart').split(' ')
  const settings = { ...parseEnv(await readFile(value('EnvironmentFile'), 'utf8')), CACHE_DIRECTORY: `/var/cache/${value('CacheDirectory')}`, PORT: '0', MIN_FREE_DISK: '0' }
  return await startServer(t, { cwd: '/', command: ['setpriv', `--reuid=${value('User')}`, `--regid=${value('Group')}`, '--init-groups', command], args, settings })
}

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
  for (const [, words = ''] of (await readFile('README.md', 'utf8')).matchAll(/^\| `voicemaild ([a-z]+(?: [a-z]+)?)/gm)) t.match(manual, new RegExp(`^\\.SS ${words}( |$)`, 'm'), words)
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

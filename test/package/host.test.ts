import { execFile } from 'node:child_process'
import { chmod, chown, copyFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { nginxSite } from '../../src/commands/nginx-config.js'
import { readConfig } from '../../src/config.js'
import { makeCertificate } from '../certificates.js'
import { startNginx } from '../deploy/nginx.js'
import { firstVoicemail } from '../first-voicemail.js'
import { freePort } from '../free-port.js'
import { startServer } from '../process.js'
import { asService, command, CONFIG, DATA, dpkg, run, serve, takeMachine } from './machine.js'

/** Of a new machine: the ways in that the README names, each with its first voicemail over HTTPS. */

const { deb, folder } = await takeMachine(t)
// nginx, and whoever it serves as, has to get there.
await chmod(folder, 0o755)
await mkdir(join(folder, 'nginx'))
const { certFile, keyFile } = await makeCertificate(join(folder, 'nginx'))

/** Pastes the README's commands into a shell that trusts the certificate and has no Node. */
async function paste (script: string, cwd: string): Promise<string> {
  const { stdout, stderr } = await promisify(execFile)('bash', ['--norc', '-euo', 'pipefail', '-c', `node () { return 127; }\n${script}`], {
    cwd, env: { PATH: '/usr/bin:/bin', CURL_CA_BUNDLE: certFile }
  })
  t.equal(stderr, '')
  return stdout
}

t.test('the package is installed and started, nginx is put before it, and the first voicemail comes and goes over HTTPS', async t => {
  await dpkg('--install', deb)
  const port = await freePort()
  const settings = {
    DATA_DIR: DATA, PORT: String(port), PUBLIC_URL: `https://localhost:${await freePort()}`, TRUST_PROXY: '127.0.0.1', X_ACCEL_PREFIX: '/protected-audio/', MIN_FREE_DISK: '0'
  }
  await writeFile(CONFIG, Object.entries(settings).map(([name, value]) => `${name}=${value}\n`).join(''))
  await run('adduser', ['--quiet', 'www-data', 'voicemaild'])
  t.teardown(async () => { await run('deluser', ['--quiet', 'www-data', 'voicemaild']).catch(() => {}) })
  const server = await serve(t, {})
  t.equal(await asService('nginx-config'), nginxSite(readConfig(settings), {}), 'the package prints the site')
  const nginx = await startNginx(t, settings, join(folder, 'nginx'))

  const cwd = join(folder, 'visitor')
  await mkdir(cwd)
  await run('cp', ['-r', '--parents', 'test/fixtures/samples/ok/pcm16-16k.wav', cwd])
  const said = await paste(await firstVoicemail({ url: settings.PUBLIC_URL, dataFolder: DATA }), cwd)
  t.match(said, /^6\.712 seconds$/m)
  t.match(said, /^every byte of it$/m)
  t.match(said, /"deleted":true\}$/)
  t.notMatch(await nginx.errors(), /permission denied|crit|emerg/i)
  const requests = server.out().trim().split('\n').map(line => JSON.parse(line)).filter(({ msg }) => msg === 'request')
  t.strictSame(requests.map(({ method, status }) => `${method} ${status}`), ['POST 201', 'POST 201', 'PUT 200', 'GET 200', 'DELETE 200'], 'nginx sent the audio without asking again')
  t.match(await command('check', '--deep'), { findings: [] })
  t.equal(await server.stop('SIGTERM'), 0)
  await dpkg('--purge', 'voicemaild')
})

t.test('the executable, alone in an empty folder of somebody who is not root, with TLS of its own: the same', async t => {
  const cwd = join(folder, 'alone')
  await mkdir(cwd)
  const [program, cert, key] = ['voicemaild', 'cert.pem', 'key.pem'].map(name => join(cwd, name))
  if (program === undefined || cert === undefined || key === undefined) throw new Error('unreachable')
  await copyFile('dist/voicemaild', program)
  await copyFile(certFile, cert)
  await copyFile(keyFile, key)
  const uid = Number((await run('id', ['-u', 'nobody'])).stdout)
  for (const path of [cwd, cert, key]) await chown(path, uid, uid)
  const server = await startServer(t, {
    cwd,
    command: ['setpriv', `--reuid=${uid}`, '--clear-groups', 'env', '-i', `HOME=${cwd}`, `TLS_CERT_FILE=${cert}`, `TLS_KEY_FILE=${key}`, 'PORT=0', 'MIN_FREE_DISK=0', program]
  })
  t.match(server.url, /^https:/)
  await run('cp', ['-r', '--parents', 'test/fixtures/samples/ok/pcm16-16k.wav', cwd])
  const script = await firstVoicemail({ url: server.url })
  const said = await paste(script, cwd)
  t.match(said, /^6\.712 seconds$/m)
  t.match(said, /^every byte of it$/m)
  t.match(said, /"deleted":true\}$/)
  const { stdout: version } = await run('curl', ['-sS', '-o', '/dev/null', '-w', '%{http_version}', '--cacert', certFile, `${server.url}/ping`])
  t.equal(version, '2')
  t.equal(await server.stop('SIGTERM'), 0)
})

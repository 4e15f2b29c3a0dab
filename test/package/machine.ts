import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseEnv, promisify } from 'node:util'
import type { Json, Testing } from '../helper.js'
import { startServer, type Server } from '../process.js'

/** A machine on which the package is installed: this one, by root. */

export const run = promisify(execFile)
export const CONFIG = '/etc/voicemaild/voicemaild.env'
export const DATA = '/var/lib/voicemaild'
export const CACHE = '/var/cache/voicemaild'
export const UNIT = '/lib/systemd/system/voicemaild.service'
export const WANTED = '/etc/systemd/system/multi-user.target.wants/voicemaild.service'

/** Throws where voicemaild is there already; takes it away in the end. Returns the package that was built, and a folder for the test. */
export async function takeMachine (t: Pick<Testing, 'teardown'>): Promise<{ deb: string, folder: string }> {
  for (const path of [CONFIG, DATA, CACHE, '/usr/bin/voicemaild']) if (existsSync(path)) throw new Error(`${path} is there: this test wants a machine without voicemaild.`)
  const [deb] = (await readdir('dist')).filter(name => name.endsWith('.deb')).map(name => join('dist', name))
  if (deb === undefined) throw new Error('This test wants the package that `npm run build:deb` makes.')
  const folder = await mkdtemp(join(tmpdir(), 'voicemaild-machine-'))
  t.teardown(async () => {
    await run('dpkg', ['--purge', 'voicemaild']).catch(() => {})
    await run('userdel', ['voicemaild']).catch(() => {})
    for (const path of [DATA, CACHE, folder]) await rm(path, { recursive: true, force: true })
  })
  return { deb, folder }
}

/** Returns what it says. */
export async function dpkg (...args: string[]): Promise<string> {
  const { stdout, stderr } = await run('dpkg', ['--force-confdef', '--force-confold', ...args], { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } })
  return stdout + stderr
}

/** Runs a command as the service's user, with its settings; returns what it prints. */
export async function asService (...args: string[]): Promise<string> {
  return (await run('runuser', ['-u', 'voicemaild', '--', 'voicemaild', '--env-file', CONFIG, ...args], { cwd: '/' })).stdout
}

export const command = async (...args: string[]): Promise<Json> => JSON.parse(await asService(...args, '--json'))

export const modeOf = async (path: string): Promise<string> => (await run('stat', ['-c', '%a %U:%G', path])).stdout.trim()

/** As systemd does it: the command and the environment of the unit, its user, its folders. */
export async function serve (t: Pick<Testing, 'teardown'>, settings: Record<string, string> = { PORT: '0', MIN_FREE_DISK: '0' }): Promise<Server> {
  const unit = await readFile(UNIT, 'utf8')
  const value = (name: string): string => new RegExp(`^${name}=-?(.*)$`, 'm').exec(unit)?.[1] ?? ''
  const [command = '', ...args] = value('ExecStart').split(' ')
  const environment = { ...parseEnv(await readFile(value('EnvironmentFile'), 'utf8')), CACHE_DIRECTORY: `/var/cache/${value('CacheDirectory')}`, ...settings }
  return await startServer(t, { cwd: '/', command: ['setpriv', `--reuid=${value('User')}`, `--regid=${value('Group')}`, '--init-groups', command], args, settings: environment })
}

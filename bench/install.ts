import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { run } from './tools.js'

/** Programs, and the packages of Debian that bring them. */
const PROGRAMS = { nginx: 'nginx', wrk: 'wrk', taskset: 'util-linux', setpriv: 'util-linux', cc: 'gcc libc6-dev' } as const
/** Those of the full run. */
const MORE_PROGRAMS = { ejabberdctl: 'ejabberd' } as const

const PEERS_FOLDER = fileURLToPath(new URL('peers/', import.meta.url))

/** Installs what is missing, the peers from their lock file, and builds voicemaild. */
export async function install (isQuick: boolean, tell: (line: string) => void): Promise<void> {
  const missing = await missingPackages(isQuick ? PROGRAMS : { ...PROGRAMS, ...MORE_PROGRAMS })
  if (missing.length > 0) {
    tell(`installing ${missing.join(' ')}`)
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    await run('apt-get', ['update'], { env })
    await run('apt-get', ['install', '--yes', '--no-install-recommends', ...missing], { env })
  }
  if (!existsSync(`${PEERS_FOLDER}node_modules`)) {
    tell('installing the peers')
    await run('npm', ['ci', '--loglevel=error'], { cwd: PEERS_FOLDER })
  }
  tell('building voicemaild')
  await run('npm', ['run', 'build'])
}

async function missingPackages (programs: Record<string, string>): Promise<string[]> {
  const packages = new Set<string>()
  for (const [program, names] of Object.entries(programs)) {
    const isThere = await run('sh', ['-c', `command -v ${program}`]).then(() => true, () => false)
    if (!isThere) for (const name of names.split(' ')) packages.add(name)
  }
  return [...packages]
}

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { EXECUTABLE, startServer } from '../process.js'

const run = promisify(execFile)
const executable = EXECUTABLE ?? ''
const QUIET = { PORT: '0', MIN_FREE_DISK: '0' }

/** Runs it with nothing in its environment but what is given, in an empty folder. */
async function alone (folder: string, env: Record<string, string>, ...args: string[]): Promise<{ code: number, out: string, err: string }> {
  await mkdir(folder, { recursive: true })
  const cwd = await mkdtemp(join(folder, 'cwd-'))
  const child = spawn(executable, args, { cwd, env: { PATH: '/nonexistent', ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  const text = { out: '', err: '' }
  child.stdout.on('data', chunk => { text.out += String(chunk) })
  child.stderr.on('data', chunk => { text.err += String(chunk) })
  const [code] = await once(child, 'close')
  return { code: Number(code), ...text }
}

async function filesIn (folder: string): Promise<string[]> {
  return (await readdir(folder, { recursive: true, withFileTypes: true })).filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name)).sort()
}

t.test('it says its version, its commit and its Node, and unpacks nothing for that', async t => {
  const dir = t.testdir()
  const home = join(dir, 'home')
  const { version } = JSON.parse(await readFile('package.json', 'utf8'))
  const isClone = await run('git', ['rev-parse', 'HEAD']).then(() => true, () => false)
  const { code, out, err } = await alone(dir, { HOME: home }, '--version')
  t.equal(code, 0)
  t.equal(err, '')
  t.match(out, isClone ? /^voicemaild \S+ \(commit [0-9a-f]{7,}(-dirty)?, Node v\S+\)\n$/ : /^voicemaild \S+ \(Node v\S+\)\n$/)
  t.match(out, `voicemaild ${version} (`)
  t.match(out, `Node ${process.version})`)
  await t.rejects(stat(home))
})

t.test('what it unpacks is its user\'s alone, in the cache of the service, or else of the user', async t => {
  const dir = t.testdir({ service: {}, home: {} })
  for (const [env, cache] of [
    [{ CACHE_DIRECTORY: join(dir, 'service'), HOME: join(dir, 'home') }, join(dir, 'service', 'files')],
    [{ XDG_CACHE_HOME: join(dir, 'xdg'), HOME: join(dir, 'home') }, join(dir, 'xdg', 'voicemaild')],
    [{ HOME: join(dir, 'home') }, join(dir, 'home', '.cache', 'voicemaild')]
  ] as const) {
    t.match(await alone(dir, env, 'account', 'list', '--json'), { code: 0, out: '[]\n', err: '' })
    t.match((await filesIn(cache)).map(path => path.replace(/\/[0-9a-f]{64}\//, '/')), [/better_sqlite3\.node$/, /\.sql$/], cache)
    for (const entry of await readdir(cache, { recursive: true, withFileTypes: true })) {
      t.equal((await stat(join(entry.parentPath, entry.name))).mode & 0o777, entry.isDirectory() ? 0o700 : 0o600, entry.name)
    }
  }
})

t.test('a library that was changed, or cut off, is never loaded', async t => {
  const dir = t.testdir({ home: {} })
  const env = { HOME: join(dir, 'home') }
  await alone(dir, env, 'account', 'list')
  const files = await filesIn(join(dir, 'home'))
  const library = files.find(path => path.endsWith('.node')) ?? ''
  const migration = files.find(path => path.endsWith('.sql')) ?? ''
  const [good, goodSql] = [await readFile(library), await readFile(migration)]
  for (const [name, spoil] of [
    ['changed', async () => { await writeFile(library, Buffer.alloc(good.length, 'x')) }],
    ['cut off', async () => { await truncate(library, good.length / 2) }],
    ['for all to write', async () => { await chmod(library, 0o666) }],
    ['gone', async () => { await rm(library) }],
    ['a migration that does more', async () => { await writeFile(migration, 'DROP TABLE accounts;') }]
  ] as const) {
    await spoil()
    t.match(await alone(dir, env, 'account', 'list', '--json'), { code: 0, out: '[]\n', err: '' }, name)
    t.ok(good.equals(await readFile(library)), 'it is as it was')
    t.ok(goodSql.equals(await readFile(migration)))
    t.equal((await stat(library)).mode & 0o777, 0o600)
    t.strictSame(await filesIn(join(dir, 'home')), files, 'and nothing else is left')
  }
})

t.test('many first starts at the same moment do not get in each other\'s way', async t => {
  const dir = t.testdir({ home: {} })
  const runs = await Promise.all(Array.from({ length: 12 }, async () => await alone(dir, { HOME: join(dir, 'home') }, 'account', 'list', '--json')))
  for (const each of runs) t.strictSame(each, { code: 0, out: '[]\n', err: '' })
  t.equal((await filesIn(join(dir, 'home'))).filter(path => path.includes('.node')).length, 1)
})

t.test('where nothing can be unpacked, one line says what to do', async t => {
  const dir = t.testdir({ file: '' })
  const { code, out, err } = await alone(dir, { HOME: join(dir, 'file'), TMPDIR: join(dir, 'file') }, 'account', 'list')
  t.equal(code, 1)
  t.equal(out, '')
  t.match(err, /^voicemaild: No folder for what voicemaild unpacks: set XDG_CACHE_HOME .* Tried: .*\.cache\/voicemaild \(.*\.\n$/)
  t.equal(err.split('\n').length, 2)
})

t.test('on a file system from which nothing may be executed, it goes on to the next cache, and says so where there is none', { skip: !await canMount() }, async t => {
  const dir = t.testdir({ noexec: {}, tmp: {}, cwd: {} })
  const listWith = async (temporary: string): Promise<{ stdout: string, stderr: string }> => {
    // In a view of the file systems that ends with the command.
    const script = 'mount -t tmpfs -o noexec,mode=700 none "$CACHE_DIRECTORY" && "$1" account list --json; echo "code $?"; ls "$CACHE_DIRECTORY"'
    const env = { PATH: process.env['PATH'], CACHE_DIRECTORY: join(dir, 'noexec'), HOME: '/nonexistent', TMPDIR: join(dir, temporary) }
    return await run('unshare', ['--mount', 'sh', '-c', script, 'sh', executable], { cwd: join(dir, 'cwd'), env })
  }
  t.match(await listWith('tmp'), { stdout: /^\[\]\ncode 0\n/, stderr: '' })
  t.match(await filesIn(join(dir, 'tmp')), [/\.node$/])
  const refused = await listWith('noexec')
  t.match(refused, { stdout: /^code 1\n/, stderr: /noexec.*failed to map segment/ })
  t.notMatch(refused.stdout, /^voicemaild-\w*[^\d\n]/m, 'what was for this process alone is gone')
})

t.test('it serves the page of the API, with every file that it wants, from an empty folder', async t => {
  const { url, stop } = await startServer(t, { cwd: t.testdir(), settings: QUIET })
  const page = await (await fetch(`${url}/docs`)).text()
  const files = [...page.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, path = '']) => path)
  t.ok(files.length >= 5)
  for (const file of files) t.equal((await fetch(new URL(file, `${url}/docs`))).status, 200, file)
  t.match(await (await fetch(`${url}/docs/static/swagger-initializer.js`)).text(), 'data:image/svg+xml')
  t.equal(await stop('SIGTERM'), 0)
})

t.test('the licenses of all that is inside are beside it', async t => {
  const text = await readFile('dist/voicemaild.LICENSES.txt', 'utf8')
  for (const name of ['better-sqlite3', 'fastify', '@fastify/swagger-ui', 'drizzle-orm', 'commander', 'Node.js']) t.match(text, new RegExp(`^${name} v?\\d+\\.\\d+`, 'm'), name)
})

t.test('the same sources make the same bytes', async t => {
  const dir = t.testdir()
  await run(process.execPath, ['--import=tsx', 'build/binary.ts', dir])
  t.ok((await readFile(join(dir, 'voicemaild'))).equals(await readFile('dist/voicemaild')))
})

async function canMount (): Promise<boolean> {
  return process.geteuid?.() === 0 && await run('unshare', ['--mount', 'true']).then(() => true, () => false)
}

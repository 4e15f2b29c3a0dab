import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { createProgram } from '../src/commands/program.js'
import { readPackage, ROOT } from './bundle.js'
import { filesIn } from './files.js'
import { writeManual, writeSettings } from './manual.js'

const SETTINGS_FILE = 'etc/voicemaild/voicemaild.env'
const SCRIPTS = ['postinst', 'prerm', 'postrm']
const MAINTAINER = `${process.env['DEBFULLNAME'] ?? 'voicemaild'} <${process.env['DEBEMAIL'] ?? 'voicemaild@packages.invalid'}>`

const output = async (command: string, args: string[], cwd = ROOT): Promise<string> => (await promisify(execFile)(command, args, { cwd })).stdout

// Other folders and another version are for tests. The executable is in the first of them.
const { version, description } = await readPackage()
const [, , from = 'dist', to = from, debianVersion = `${version.replace('-', '~')}-1`] = process.argv
const work = await mkdtemp(join(tmpdir(), 'voicemaild-deb-'))
try {
  await mkdir(to, { recursive: true })
  await makePackage(resolve(from), resolve(to))
} finally {
  await rm(work, { recursive: true, force: true })
}

async function makePackage (from: string, to: string): Promise<void> {
  const date = await readDate()
  const root = join(work, 'root')
  const put = async (path: string, content: string | Uint8Array, mode = 0o644): Promise<void> => {
    const file = join(root, path)
    await mkdir(dirname(file), { recursive: true, mode: 0o755 })
    await writeFile(file, content)
    await chmod(file, mode)
  }
  const compressed = async (text: string): Promise<Uint8Array> => {
    await writeFile(join(work, 'text'), text)
    return (await promisify(execFile)('gzip', ['-9nc', join(work, 'text')], { encoding: 'buffer' })).stdout
  }

  await put('usr/bin/voicemaild', '', 0o755)
  await copyFile(join(from, 'voicemaild'), join(root, 'usr/bin/voicemaild'))
  for (const unit of ['voicemaild.service', 'voicemaild.socket']) await put(`lib/systemd/system/${unit}`, await readFile(join(ROOT, 'deploy', unit)))
  await put(SETTINGS_FILE, writeSettings({ DATA_DIR: '/var/lib/voicemaild' }), 0o640)
  const { program } = createProgram({ env: {}, clock: Date.now, output: { print: () => {}, tell: () => {} } })
  await put('usr/share/man/man8/voicemaild.8.gz', await compressed(writeManual(program, { version, date })))
  await put('usr/share/doc/voicemaild/copyright', await writeCopyright(from))
  await put('usr/share/doc/voicemaild/changelog.Debian.gz', await compressed(
    `voicemaild (${debianVersion}) stable; urgency=medium\n\n  * Version ${version}; changelog.gz tells what is new.\n\n -- ${MAINTAINER}  ${date.toUTCString().replace('GMT', '+0000')}\n`
  ))
  await put('usr/share/doc/voicemaild/changelog.gz', await compressed(await readFile(join(ROOT, 'CHANGELOG.md'), 'utf8')))
  // What the SIP server's side runs, and a site of nginx.
  for (const entry of await readdir(join(ROOT, 'deploy'), { withFileTypes: true })) {
    if (!entry.isFile() || /^voicemaild\./.test(entry.name)) continue
    const example = join(ROOT, 'deploy', entry.name)
    await put(`usr/share/doc/voicemaild/examples/${entry.name}`, await readFile(example), (await stat(example)).mode & 0o111 ? 0o755 : 0o644)
  }
  await put('usr/share/lintian/overrides/voicemaild', await readFile(join(ROOT, 'deploy', 'debian', 'lintian-overrides')))

  const files = await filesIn(root)
  const sums = await Promise.all(files.filter(path => path !== SETTINGS_FILE).map(async path => `${createHash('md5').update(await readFile(join(root, path))).digest('hex')}  ${path}\n`))
  const sizes = await Promise.all(files.map(async path => (await stat(join(root, path))).size))
  for (const script of SCRIPTS) await put(`DEBIAN/${script}`, await readFile(join(ROOT, 'deploy', 'debian', script)), 0o755)
  await put('DEBIAN/md5sums', sums.join(''))
  await put('DEBIAN/conffiles', `/${SETTINGS_FILE}\n`)
  const architecture = (await output('dpkg', ['--print-architecture'])).trim()
  await put('DEBIAN/control', [
    'Package: voicemaild',
    `Version: ${debianVersion}`,
    `Architecture: ${architecture}`,
    `Maintainer: ${MAINTAINER}`,
    `Installed-Size: ${sizes.reduce((sum, size) => sum + Math.ceil(size / 1024), 0)}`,
    'Pre-Depends: init-system-helpers (>= 1.54~)',
    `Depends: adduser, ${await findLibraries(join(root, 'usr/bin/voicemaild'))}`,
    'Suggests: nginx',
    'Section: comm',
    'Priority: optional',
    'Description: voicemail store for SIP',
    ...wrap(`${description} A recorder asks for a slot and uploads the audio to the signed URL that came with it; the owner lists, hears and deletes it.`)
  ].join('\n') + '\n')
  await promisify(execFile)('dpkg-deb', ['--root-owner-group', '-Zxz', '-z1', '--build', root, join(to, `voicemaild_${debianVersion}_${architecture}.deb`)], {
    env: { ...process.env, SOURCE_DATE_EPOCH: String(date.getTime() / 1000) }
  })
}

/** What the executable and the library inside it are linked against, as packages. */
async function findLibraries (executable: string): Promise<string> {
  const addon = createRequire(import.meta.url).resolve('better-sqlite3/build/Release/better_sqlite3.node')
  await mkdir(join(work, 'debian'))
  await writeFile(join(work, 'debian', 'control'), 'Source: voicemaild\n\nPackage: voicemaild\nArchitecture: any\n')
  const [, depends] = /^shlibs:Depends=(.*)$/m.exec(await output('dpkg-shlibdeps', ['-O', `-e${executable}`, `-e${addon}`], work)) ?? []
  if (depends === undefined) throw new Error('dpkg-shlibdeps found no libraries.')
  return depends
}

async function writeCopyright (from: string): Promise<string> {
  const licenses = await readFile(join(from, 'voicemaild.LICENSES.txt'), 'utf8')
  return `voicemaild, with Node.js and all packages that are inside its executable.\n\n${licenses.replaceAll('\r', '')}`
}

/** The moment of what is packed, so that the same sources make the same bytes. */
async function readDate (): Promise<Date> {
  const seconds = process.env['SOURCE_DATE_EPOCH'] ?? (await output('git', ['log', '-1', '--format=%ct']).catch(() => '')).trim()
  const { mtime } = await stat(join(ROOT, 'package.json'))
  return new Date(1000 * (Number(seconds) || Math.floor(mtime.getTime() / 1000)))
}

/** The long description: lines that begin with a blank. */
function wrap (text: string): string[] {
  return [...text.matchAll(/(.{1,75})(?:\s+|$)/g)].map(([, line]) => ` ${line}`)
}

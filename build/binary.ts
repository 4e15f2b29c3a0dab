import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmod, copyFile, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { MANIFEST_ASSET, type Manifest } from '../src/installation/embedded.js'
import { bundle, ROOT } from './bundle.js'
import { forgetSeed, SEED } from './code-cache.js'
import { filesIn } from './files.js'
import { gatherLicenses } from './licenses.js'

/** What Node looks for to see whether a program was put in; the same in every version. */
const SENTINEL_FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2'

const { resolve: find } = createRequire(import.meta.url)
const packageFolder = (name: string): string => dirname(find(`${name}/package.json`))
/** In the folder of what is unfinished: its name, which is another each time, must not get into the program. */
const node = async (...args: string[]): Promise<unknown> => await promisify(execFile)(process.execPath, args, { cwd: work })

/** The folders that go into the executable, and which of their files. */
const FOLDERS = {
  addons: { from: join(packageFolder('better-sqlite3'), 'build', 'Release'), wants: (path: string) => path === 'better_sqlite3.node' },
  // Snapshots are for making the next migration.
  drizzle: { from: join(ROOT, 'drizzle'), wants: (path: string) => path.endsWith('.sql') || path === 'meta/_journal.json' },
  'swagger-ui': { from: join(packageFolder('@fastify/swagger-ui'), 'static'), wants: () => true }
}

// Another folder is for tests.
const [, , folder = 'dist'] = process.argv
const work = await mkdtemp(join(tmpdir(), 'voicemaild-build-'))
try {
  await mkdir(folder, { recursive: true })
  await makeBinary(resolve(folder))
} finally {
  await rm(work, { recursive: true, force: true })
}

async function makeBinary (folder: string): Promise<void> {
  const main = join(work, 'main.js')
  const metafile = await bundle({
    outfile: main,
    plugins: [{
      // better-sqlite3 asks this package for its compiled library.
      name: 'bindings',
      setup: ({ onResolve, onLoad }) => {
        onResolve({ filter: /^bindings$/ }, () => ({ path: 'bindings', namespace: 'addon' }))
        onLoad({ filter: /^bindings$/, namespace: 'addon' }, () => ({
          contents: 'module.exports = require("./src/installation/native-addon.ts").loadAddon', resolveDir: ROOT
        }))
      }
    }]
  })
  const { manifest, assets } = await gatherAssets()
  await writeFile(join(work, MANIFEST_ASSET), JSON.stringify(manifest))
  await writeFile(join(work, 'sea.json'), JSON.stringify({
    main: 'main.js',
    output: 'blob',
    disableExperimentalSEAWarning: true,
    // Node reads the program as it was compiled here.
    useCodeCache: true,
    assets: { [MANIFEST_ASSET]: MANIFEST_ASSET, ...assets }
  }))
  await node(SEED, '--experimental-sea-config', 'sea.json')
  await forgetSeed(join(work, 'blob'))

  // One that runs is not written over.
  const unfinished = join(folder, `voicemaild.${process.pid}`)
  await copyFile(process.execPath, unfinished)
  await chmod(unfinished, 0o755)
  // What it warns of, names of sections, is nothing that an executable needs.
  await node(find('postject/dist/cli.js'), unfinished, 'NODE_SEA_BLOB', 'blob', '--sentinel-fuse', SENTINEL_FUSE)
  const { stderr } = await promisify(execFile)(unfinished, ['--version'])
  if (stderr !== '') throw new Error(`The executable complains: ${stderr}`)
  await rename(unfinished, join(folder, 'voicemaild'))
  await writeFile(join(folder, 'voicemaild.LICENSES.txt'), await gatherLicenses(metafile, ['better-sqlite3', '@fastify/swagger-ui'].map(packageFolder), `${main}.LEGAL.txt`))
}

/** Everything in an order that is always the same, so that the same sources make the same bytes. */
async function gatherAssets (): Promise<{ manifest: Manifest, assets: Record<string, string> }> {
  const manifest: Manifest = {}
  const assets: Record<string, string> = {}
  for (const [name, { from, wants }] of Object.entries(FOLDERS)) {
    const files = (await filesIn(from)).filter(wants)
    if (files.length === 0) throw new Error(`Nothing was found in ${from}.`)
    const hash = createHash('sha256')
    for (const path of files) {
      const content = await readFile(join(from, path))
      hash.update(`${path}\0${content.length}\0`).update(content)
      assets[`${name}/${path}`] = join(from, path)
    }
    manifest[name] = { sha256: hash.digest('hex'), files }
  }
  return { manifest, assets }
}

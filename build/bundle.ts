import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { build, type BuildOptions, type Metafile } from 'esbuild'

export const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** The package's own facts. */
export async function readPackage (): Promise<{ version: string, description: string }> {
  return JSON.parse(await readFile(`${ROOT}package.json`, 'utf8'))
}

/**
 * Makes one file of src/main.ts, because Node takes twice as long to find and read some nine hundred as for everything else at start. And
 * CommonJS, which Node loads without its thread pool, so that main.ts may still say how large that is to be.
 */
export async function bundle ({ outfile, ...options }: BuildOptions & { outfile: string }): Promise<Metafile> {
  const { version } = await readPackage()
  const { metafile } = await build({
    absWorkingDir: ROOT,
    entryPoints: ['src/main.ts'],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'cjs',
    define: { 'import.meta.url': 'import_meta_url', BUILT_VERSION: JSON.stringify(version), BUILT_COMMIT: JSON.stringify(await readCommit()) },
    banner: { js: 'const import_meta_url = require("node:url").pathToFileURL(__filename).href' },
    legalComments: 'external',
    logLevel: 'warning',
    ...options,
    metafile: true
  })
  // In code esbuild writes ASCII, but it keeps comments as they are, and for one dash in one of them V8 would hold all of it at two bytes a character.
  await writeFile(outfile, (await readFile(outfile, 'utf8')).replaceAll(/\P{ASCII}/gu, '?'))
  return metafile
}

/** The commit of what is built, with `-dirty` where it was changed since; nothing where this folder is no clone. */
async function readCommit (): Promise<string> {
  const git = async (...args: string[]): Promise<string> => (await promisify(execFile)('git', args, { cwd: ROOT })).stdout.trim()
  try {
    // An unpacked package may lie in somebody else's repository.
    if (await git('rev-parse', '--show-prefix') !== '') return ''
    return await git('describe', '--always', '--dirty', '--abbrev=7', '--exclude=*')
  } catch {
    return ''
  }
}

import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { build } from 'esbuild'

// Another folder is for tests. The program looks for package.json and drizzle/ beside it.
const [, , folder = 'dist'] = process.argv
const main = join(folder, 'main.js')

await rm(folder, { recursive: true, force: true })
// One file, because Node takes twice as long to find and read some nine hundred as for everything else at start. And CommonJS, which
// Node loads without its thread pool, so that main.ts may still say how large that is to be.
await build({
  entryPoints: ['src/main.ts'],
  outfile: main,
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  // The one loads a compiled library that lies beside it; the other sends files, and is loaded when somebody wants them.
  external: ['better-sqlite3', '@fastify/swagger-ui'],
  define: { 'import.meta.url': 'import_meta_url' },
  banner: { js: 'const import_meta_url = require("node:url").pathToFileURL(__filename).href' },
  legalComments: 'external',
  logLevel: 'warning'
})
await writeFile(join(folder, 'package.json'), '{ "type": "commonjs" }\n')

// In code esbuild writes ASCII, but it keeps comments as they are, and for one dash in one of them V8 would hold all of it at two bytes a character.
await writeFile(main, (await readFile(main, 'utf8')).replaceAll(/\P{ASCII}/gu, '?'))

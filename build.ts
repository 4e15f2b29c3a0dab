import { rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { bundle } from './build/bundle.js'

// Another folder is for tests. The program looks for package.json and drizzle/ beside it.
const [, , folder = 'dist'] = process.argv

await rm(folder, { recursive: true, force: true })
// The one loads a compiled library that lies beside it; the other sends files, and is loaded when somebody wants them.
await bundle({ outfile: resolve(folder, 'main.js'), external: ['better-sqlite3', '@fastify/swagger-ui'] })
await writeFile(join(folder, 'package.json'), '{ "type": "commonjs" }\n')

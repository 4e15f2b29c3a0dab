import { readFileSync } from 'node:fs'
import { isSea } from 'node:sea'
import { fileURLToPath } from 'node:url'
import { readCacheFolders } from './config.js'
import { placeFiles } from './installation/cache.js'
import { readEmbedded } from './installation/embedded.js'

/** What the build puts in (build/bundle.ts); where the sources run, nobody did. */
declare const BUILT_VERSION: string
declare const BUILT_COMMIT: string

/**
 * What is installed beside the program, which runs from src/ or, as one file, from dist/: both are one step below. The single
 * executable has nothing beside it but itself: what has to be a file comes out of it into a cache.
 */
const root = new URL('../', import.meta.url)

/** The folder of the SQL migrations of the database. Throws where the single executable finds no place for it. */
export function migrationsFolder (): string {
  return isSea() ? placeFiles(readEmbedded('drizzle'), readCacheFolders(), folder => folder) : fileURLToPath(new URL('drizzle/', root))
}

/** What @fastify/swagger-ui cannot find beside itself when it is inside the single executable. Throws as `migrationsFolder` does. */
export function docsPage (): { baseDir?: string, logo?: { type: string, content: Buffer } } {
  if (!isSea()) return {}
  const files = readEmbedded('swagger-ui')
  const logo = files.files.find(({ path }) => path === 'logo.svg')
  return {
    baseDir: placeFiles(files, readCacheFolders(), folder => folder),
    ...logo !== undefined && { logo: { type: 'image/svg+xml', content: Buffer.from(logo.content) } }
  }
}

/** The version of this package. */
export function readVersion (): string {
  if (typeof BUILT_VERSION === 'string') return BUILT_VERSION
  const manifest: unknown = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'))
  return typeof manifest === 'object' && manifest !== null && 'version' in manifest ? String(manifest.version) : 'unknown'
}

/** For whoever reports a fault: the version, the commit that it was built from where that was known, and the Node that runs it. */
export function describeProgram (): string {
  const commit = typeof BUILT_COMMIT === 'string' && BUILT_COMMIT !== '' ? [`commit ${BUILT_COMMIT}`] : []
  return `voicemaild ${readVersion()} (${[...commit, `Node ${process.version}`].join(', ')})`
}

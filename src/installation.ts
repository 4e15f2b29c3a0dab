import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** What is installed beside the program, which runs from src/ or, as one file, from dist/: both are one step below. */
const root = new URL('../', import.meta.url)

/** The SQL migrations of the database. */
export const MIGRATIONS_FOLDER = fileURLToPath(new URL('drizzle/', root))

/** The version of this package. */
export function readVersion (): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'))
  return typeof manifest === 'object' && manifest !== null && 'version' in manifest ? String(manifest.version) : 'unknown'
}

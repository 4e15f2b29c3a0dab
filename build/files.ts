import { readdir } from 'node:fs/promises'
import { join, relative } from 'node:path'

/** The paths of all files below a folder, from there; in an order that is always the same. */
export async function filesIn (folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  return entries.filter(entry => entry.isFile()).map(entry => relative(folder, join(entry.parentPath, entry.name))).sort()
}

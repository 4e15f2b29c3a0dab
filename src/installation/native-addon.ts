import { createRequire } from 'node:module'
import { readCacheFolders } from '../config.js'
import { placeFiles } from './cache.js'
import { readEmbedded } from './embedded.js'

/**
 * What the package `bindings` is to better-sqlite3, inside the single executable (build/binary.ts puts it in its place): finds a compiled
 * library by its name, and loads it. The system loads libraries from files only.
 */
export function loadAddon (name: string): unknown {
  const load = createRequire(process.execPath)
  return placeFiles(readEmbedded('addons'), readCacheFolders(), folder => load(`${folder}/${name}`))
}

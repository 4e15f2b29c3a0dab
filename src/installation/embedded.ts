import { getAsset, getRawAsset } from 'node:sea'

/** The folders inside the single executable. Node 20 tells of no assets, so this list is one. Made by build/binary.ts. */
export type Manifest = Record<string, {
  /** Of the names and contents of all its files, in their order. */
  sha256: string
  /** Paths below the folder, with `/`. */
  files: string[]
}>

/** The asset that has the manifest; the others are called `folder/path`. */
export const MANIFEST_ASSET = 'manifest.json'

/** Files inside the single executable. */
export interface EmbeddedFolder {
  sha256: string
  files: Array<{ path: string, content: Uint8Array }>
}

/** A folder by its name. The contents are the executable's own memory: for reading only. */
export function readEmbedded (name: string): EmbeddedFolder {
  const manifest: Manifest = JSON.parse(getAsset(MANIFEST_ASSET, 'utf8'))
  const folder = manifest[name]
  if (folder === undefined) throw new Error(`The executable has no folder ${name} inside.`)
  return { sha256: folder.sha256, files: folder.files.map(path => ({ path, content: readRaw(`${name}/${path}`) })) }
}

function readRaw (asset: string): Uint8Array {
  const content = getRawAsset(asset)
  return typeof content === 'string' ? Buffer.from(content) : new Uint8Array(content)
}

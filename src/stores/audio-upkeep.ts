import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { lstat, mkdir, readdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { layoutOf } from './audio-layout.js'
import { hasCode, undefinedIfGone } from './fs-errors.js'

/** A file as it was found, at a path below the folder of audio. */
export interface FoundFile { path: string, bytes: number, modifiedAtMs: number }

/** The files, as those see them who look after the whole. */
export interface AudioUpkeep {
  /** What is in the folder of audio itself: the shards, and whatever else. */
  shards: () => Promise<string[]>
  /** What is in a shard, or the shard itself where it is no folder. Links and folders count as files of size 0. Throws where it cannot be read. */
  filesIn: (shard: string) => Promise<FoundFile[]>
  /** Undefined where there is no such file. */
  look: (path: string) => Promise<FoundFile | undefined>
  /** SHA-256 in hexadecimal; undefined where there is no such file. */
  hash: (path: string) => Promise<string | undefined>
  /** Moves a file to `lost+found`; returns its new name there, or undefined where it has gone meanwhile. */
  quarantine: (path: string) => Promise<string | undefined>
}

export function createAudioUpkeep (dataFolder: string): AudioUpkeep {
  const { audioFolder, lostFolder } = layoutOf(dataFolder)

  async function look (path: string): Promise<FoundFile | undefined> {
    const stat = await lstat(join(audioFolder, path)).catch(undefinedIfGone)
    return stat && { path, bytes: stat.isFile() ? stat.size : 0, modifiedAtMs: stat.mtimeMs }
  }

  return {
    look,
    shards: async () => (await readdir(audioFolder)).sort(),
    filesIn: async shard => {
      const names = await readdir(join(audioFolder, shard)).then(names => names.map(name => `${shard}/${name}`), (error: unknown) => {
        // Only that: a folder that cannot be read now must not pass for one strange file, with all its audio gone.
        if (hasCode(error, 'ENOTDIR')) return [shard]
        return undefinedIfGone(error) ?? []
      })
      const found: FoundFile[] = []
      for (const name of names) {
        const file = await look(name)
        if (file !== undefined) found.push(file)
      }
      return found
    },
    hash: async path => {
      const hash = createHash('sha256')
      const isThere = await pipeline(createReadStream(join(audioFolder, path), { highWaterMark: 1024 * 1024 }), hash).then(() => true, undefinedIfGone)
      return isThere === true ? hash.digest('hex') : undefined
    },
    quarantine: async path => {
      await mkdir(lostFolder, { recursive: true, mode: 0o700 })
      const taken = new Set(await readdir(lostFolder))
      const base = path.replaceAll('/', '-')
      let name = base
      for (let n = 1; taken.has(name); n++) name = `${base}.${n}`
      return await rename(join(audioFolder, path), join(lostFolder, name)).then(() => name, undefinedIfGone)
    }
  }
}

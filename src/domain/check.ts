import type { AudioUpkeep, FoundFile } from '../stores/audio-upkeep.js'
import type { KnownFile, UpkeepStore } from '../stores/upkeep-store.js'
import type { Clock } from './clock.js'

/** Something that is not as the rows say, or not as the files say. */
export interface Finding {
  kind: 'strange_file' | 'missing_file' | 'wrong_size' | 'wrong_hash'
  /** Below the folder of audio. */
  path: string
  /** The voicemail that the file is for; null for a file that no row knows. */
  voicemail: string | null
  expected: string | number | null
  found: string | number | null
  /** What `repair` did about it. */
  repair: string | null
}

export interface CheckOptions {
  upkeepStore: UpkeepStore
  audioUpkeep: AudioUpkeep
  clock: Clock
  relativePath: (fileName: string) => string
}

export interface CheckMode {
  /** Reads every file against its SHA-256. */
  deep?: boolean
  /** Puts strange files into `lost+found`, and marks voicemails whose audio is gone. */
  repair?: boolean
  onProgress?: (done: number, total: number) => void
  signal?: AbortSignal
}

/** Younger things may be under way: an upload, a deletion. */
const LEFT_ALONE_MS = 60 * 60_000

/** Compares rows with files, both ways, shard by shard; safe beside a running server. Returns how many files rows know, and what was found. */
export async function check (options: CheckOptions, mode: CheckMode = {}): Promise<{ files: number, findings: Finding[] }> {
  const { upkeepStore, audioUpkeep, clock, relativePath } = options
  const findings: Finding[] = []
  const total = await upkeepStore.countFiles()
  let done = 0

  const isYoung = (atMs: number | null): boolean => atMs !== null && clock() - atMs < LEFT_ALONE_MS

  async function report (finding: Omit<Finding, 'repair'>, file: FoundFile | undefined, known: KnownFile | undefined): Promise<void> {
    const repairs: string[] = []
    if (mode.repair === true) {
      const name = file === undefined ? undefined : await audioUpkeep.quarantine(file.path)
      if (name !== undefined) repairs.push(`moved to lost+found/${name}`)
      if (known !== undefined) {
        await upkeepStore.markLost(known.id, 'The audio of this voicemail is no longer on the disk.', clock())
        repairs.push('marked as lost')
      }
    }
    findings.push({ ...finding, repair: repairs.length === 0 ? null : repairs.join(', ') })
  }

  async function checkStrange (file: FoundFile): Promise<void> {
    const name = file.path.slice(file.path.indexOf('/') + 1)
    if (isYoung(file.modifiedAtMs)) return
    const known = await upkeepStore.findFile(name)
    if (known !== undefined && relativePath(name) === file.path) return
    // In the order of a deletion: row, note, file, so that none under way, and none that has ended since the first look, is found here.
    if (await upkeepStore.isAwaitingRemoval(name) || await audioUpkeep.look(file.path) === undefined) return
    await report({ kind: 'strange_file', path: file.path, voicemail: null, expected: null, found: file.bytes }, file, undefined)
  }

  async function checkKnown (known: KnownFile, file: FoundFile | undefined): Promise<void> {
    if (isYoung(known.uploadedAtMs)) return
    const path = relativePath(known.fileName)
    if (file === undefined) {
      // Marked before, or deleted since its row was read.
      if (known.failureCode === 'audio_lost' || await upkeepStore.findFile(known.fileName) === undefined) return
      await report({ kind: 'missing_file', path, voicemail: known.id, expected: known.fileBytes, found: null }, undefined, known)
    } else if (file.bytes !== known.fileBytes) {
      await report({ kind: 'wrong_size', path, voicemail: known.id, expected: known.fileBytes, found: file.bytes }, file, known)
    } else if (mode.deep === true) {
      const hash = await audioUpkeep.hash(path)
      if (hash === undefined || hash === known.sha256) return
      await report({ kind: 'wrong_hash', path, voicemail: known.id, expected: known.sha256, found: hash }, file, known)
    }
  }

  for (const shard of new Set([...await audioUpkeep.shards(), ...await upkeepStore.shards()])) {
    if (mode.signal?.aborted === true) break
    // Files first: what is stored between the two looks has a row by then.
    const files = new Map((await audioUpkeep.filesIn(shard)).map(file => [file.path, file]))
    for (const known of await upkeepStore.filesIn(shard)) {
      const path = relativePath(known.fileName)
      await checkKnown(known, files.get(path))
      files.delete(path)
      done += 1
      mode.onProgress?.(done, total)
    }
    for (const file of files.values()) await checkStrange(file)
  }
  return { files: done, findings }
}

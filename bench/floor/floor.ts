import { randomUUID } from 'node:crypto'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createFolderSync } from '../../src/stores/disk-sync.js'
import { disk } from '../../src/stores/disk.js'

/**
 * The disk's floor, as far as node gets to it: writes files under a temporary name, syncs, renames, and syncs the folder; so many at once,
 * without HTTP. As in voicemaild the files go to one folder for a while and then to another, which those that are written together sync together,
 * and the disk is asked by the same calls. UV_THREADPOOL_SIZE has to be at least as large as AT-ONCE.
 *
 * floor.ts FOLDER FILE AT-ONCE SECONDS OPERATIONS [unsynced], as floor.c
 */
const [folder = '', source = '', atOnceText, secondsText, operationsText, unsynced] = process.argv.slice(2)
const [atOnce, seconds, operations] = [Number(atOnceText), Number(secondsText), Number(operationsText)]
const SHARDS = 256
const FILES_IN_A_ROW = 256
const syncFolder = createFolderSync()

const bytes = readFileSync(source)
const shards = Array.from({ length: SHARDS }, (_none, at) => join(folder, at.toString(16).padStart(2, '0')))
for (const path of [join(folder, 'incoming'), ...shards]) mkdirSync(path, { recursive: true })

let begun = 0
const cpuBefore = process.cpuUsage()
const sinceMs = performance.now()
const untilMs = sinceMs + seconds * 1000

async function writeFiles (): Promise<void> {
  while (begun < operations && performance.now() < untilMs) {
    const shard = shards[Math.floor(begun / FILES_IN_A_ROW) % SHARDS] ?? folder
    begun += 1
    const name = randomUUID()
    const draft = join(folder, 'incoming', name)
    const fd = await disk.open(draft, 'wx', 0o600)
    await disk.write(fd, [bytes])
    if (unsynced === undefined) await disk.datasync(fd)
    disk.close(fd)
    await disk.rename(draft, join(shard, name))
    if (unsynced === undefined) await syncFolder(shard)
  }
}

await Promise.all(Array.from({ length: atOnce }, writeFiles))
const { user, system } = process.cpuUsage(cpuBefore)
console.log(begun, (performance.now() - sinceMs) / 1000, user + system, process.resourceUsage().maxRSS * 1024)

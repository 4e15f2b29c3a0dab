import { randomUUID } from 'node:crypto'
import { mkdirSync, readFileSync } from 'node:fs'
import { open, rename } from 'node:fs/promises'
import { join } from 'node:path'

/**
 * The disk's floor, as far as node gets to it: writes files under a temporary name, syncs, renames, and syncs the folder; so many at once,
 * without HTTP. As in voicemaild the files are spread over folders. UV_THREADPOOL_SIZE has to be at least as large as AT-ONCE.
 *
 * floor.ts FOLDER FILE AT-ONCE SECONDS OPERATIONS, as floor.c
 */
const [folder = '', source = '', ...numbers] = process.argv.slice(2)
const [atOnce = 1, seconds = 1, operations = 1] = numbers.map(Number)
const SHARDS = 256

const bytes = readFileSync(source)
const shards = Array.from({ length: SHARDS }, (_none, at) => join(folder, at.toString(16).padStart(2, '0')))
for (const path of [join(folder, 'incoming'), ...shards]) mkdirSync(path, { recursive: true })

let begun = 0
const cpuBefore = process.cpuUsage()
const sinceMs = performance.now()
const untilMs = sinceMs + seconds * 1000

async function writeFiles (): Promise<void> {
  while (begun < operations && performance.now() < untilMs) {
    const shard = shards[begun % SHARDS] ?? folder
    begun += 1
    const name = randomUUID()
    const draft = join(folder, 'incoming', name)
    const file = await open(draft, 'wx')
    await file.write(bytes)
    await file.datasync()
    await file.close()
    await rename(draft, join(shard, name))
    const directory = await open(shard)
    await directory.sync()
    await directory.close()
  }
}

await Promise.all(Array.from({ length: atOnce }, writeFiles))
const { user, system } = process.cpuUsage(cpuBefore)
console.log(begun, (performance.now() - sinceMs) / 1000, user + system, process.resourceUsage().maxRSS * 1024)

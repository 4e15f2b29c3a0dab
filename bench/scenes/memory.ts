import { request } from 'node:http'
import { wavOf } from '../../test/samples.js'
import { readTree } from '../process-tree.js'
import { addSlots, makeDataFolder, startVoicemaild } from '../servers/voicemaild.js'
import type { ServerProcess, Stage } from '../stage.js'
import { sleep } from '../tools.js'
import type { Scene } from './scene.js'

export const IDLE_MEMORY = 'memory, idle after start'
export const UPLOAD_MEMORY = 'memory, 64 uploads of 12.5 MB at once, over idle'

const LARGE_BYTES = 12_500_000
const AT_ONCE = 64
/** How long a server may be busy after its start, with 1,000,000 voicemails to look over. */
const QUIET_TIMEOUT_MS = 300_000
const QUIET_EVERY_MS = 500
/** One look can fall into a moment in which it waits for the disk. */
const QUIET_LOOKS = 3
/** Less is the noise of timers. */
const QUIET_CPU_US = 10_000

/** Idle memory and, `withUploads`, what comes on top of it at most while large files come in all at once. */
export function memoryScene (stage: Stage, times: number, withUploads: boolean): Scene {
  return {
    names: withUploads ? [IDLE_MEMORY, UPLOAD_MEMORY] : [IDLE_MEMORY],
    prepare: async () => {
      const idle: number[] = []
      const over: number[] = []
      const audio = wavOf(LARGE_BYTES)
      for (let n = 0; n < times; n++) {
        const folder = stage.newFolder('memory')
        const slots = addSlots(folder, await makeDataFolder(folder), AT_ONCE)
        const server = await startVoicemaild(stage, folder)
        await untilQuiet(server)
        const { residentBytes } = readTree(server.pid)
        idle.push(residentBytes / 1e6)
        if (withUploads) {
          await Promise.all(slots.map(async ({ uploadPath }) => { await put(server.port, uploadPath, audio) }))
          over.push((readTree(server.pid).peakBytes - residentBytes) / 1e6)
        }
        await stage.stopServers()
        stage.emptyFolders()
      }
      return {
        figures: [
          { name: IDLE_MEMORY, unit: 'MB', values: idle },
          ...withUploads ? [{ name: UPLOAD_MEMORY, unit: 'MB' as const, values: over }] : []
        ]
      }
    }
  }
}

/** Resolves when a server has used no time worth mentioning for a while: what it does after its start is done. */
export async function untilQuiet ({ pid }: ServerProcess): Promise<void> {
  const untilMs = performance.now() + QUIET_TIMEOUT_MS
  let quietLooks = 0
  for (let lastUs = -Infinity; performance.now() < untilMs;) {
    const { cpuUs } = readTree(pid)
    quietLooks = cpuUs - lastUs <= QUIET_CPU_US ? quietLooks + 1 : 0
    if (quietLooks === QUIET_LOOKS) return
    lastUs = cpuUs
    await sleep(QUIET_EVERY_MS)
  }
  throw new Error('the server does not come to rest')
}

/** The bytes are not copied for each of many uploads. */
async function put (port: number, path: string, body: Buffer): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    request({ host: '127.0.0.1', port, path, method: 'PUT', agent: false, headers: { 'content-type': 'audio/wav', 'content-length': body.length } }, response => {
      response.resume()
      if (response.statusCode === 200) response.once('end', resolve)
      else reject(new Error(`an upload of ${body.length} bytes was answered with ${response.statusCode}`))
    }).once('error', reject).end(body)
  })
}

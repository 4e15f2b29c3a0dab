import { get } from 'node:http'
import { voicemaildCommand } from '../servers/voicemaild.js'
import { freePort } from '../../test/free-port.js'
import type { Stage } from '../stage.js'
import { sleep } from '../tools.js'
import type { Scene } from './scene.js'

export const EMPTY_START = 'start, empty folder'

const TIMEOUT_MS = 60_000

export function startScene (stage: Stage, times: number): Scene {
  return {
    names: [EMPTY_START],
    prepare: async () => {
      const values: number[] = []
      for (let n = 0; n < times; n++) values.push(await timeStart(stage, stage.newFolder('start')))
      return { figures: [{ name: EMPTY_START, unit: 'ms', values }] }
    }
  }
}

/** Milliseconds from the start of the process to the first answer of its health route. The server is stopped again. */
export async function timeStart (stage: Stage, dataFolder: string): Promise<number> {
  const port = await freePort()
  const sinceMs = performance.now()
  const child = stage.spawnServer(voicemaildCommand(dataFolder, port))
  child.stderr?.resume()
  let tookMs
  do {
    await sleep(1)
    tookMs = performance.now() - sinceMs
    if (child.exitCode !== null || tookMs > TIMEOUT_MS) throw new Error('voicemaild did not start')
  } while (!await isLive(port))
  await stage.stopServers()
  return tookMs
}

async function isLive (port: number): Promise<boolean> {
  return await new Promise(resolve => {
    get({ host: '127.0.0.1', port, path: '/health/live', agent: false }, response => {
      response.resume()
      resolve(response.statusCode === 200)
    }).once('error', () => { resolve(false) })
  })
}

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ServerProcess, Stage } from '../stage.js'
import { startScript } from './peers.js'
import { DATABASE_FILE, PEER_SETTINGS } from './voicemaild.js'

export const MEMORY_PEER = 'Fastify from memory'
export const KEYED_PEER = 'Fastify from memory, key and account looked up'

/** An answer to be given again. */
export interface Answer { method: 'GET' | 'POST', path: string, status: number, headers: Record<string, string>, body: string | undefined, bodyFile?: string }

/** Headers that every answer has of its own. */
const OWN_HEADERS = ['connection', 'content-length', 'date', 'keep-alive', 'transfer-encoding']

/** What a server answers. Throws where that is no success. */
export async function answerOf (port: number, path: string, { method = 'GET', ...init }: Pick<RequestInit, 'headers' | 'body'> & Partial<Pick<Answer, 'method'>>): Promise<Answer & { body: string }> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, ...init })
  const body = await response.text()
  if (!response.ok) throw new Error(`${path} was answered with ${response.status}: ${body}`)
  const headers = Object.fromEntries([...response.headers].filter(([name]) => !OWN_HEADERS.includes(name)))
  return { method, path, status: response.status, headers, body }
}

/** Starts a server that has these answers in memory; for `keyOf` one that knows who asks, by the rows of voicemaild. */
export async function startFromMemory (stage: Stage, answers: readonly Answer[], keyOf?: { dataFolder: string, account: number }): Promise<ServerProcess> {
  const folder = stage.newFolder('from-memory')
  await writeFile(join(folder, 'answers.json'), JSON.stringify(answers))
  return await startScript(stage, folder, 'from-memory.js', keyOf === undefined
    ? {}
    : { ...PEER_SETTINGS, DATABASE: join(keyOf.dataFolder, DATABASE_FILE), ACCOUNT: String(keyOf.account) })
}

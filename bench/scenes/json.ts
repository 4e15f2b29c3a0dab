import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Load } from '../client.js'
import { httpContender, type Contest } from '../contest.js'
import { startScript } from '../servers/peers.js'
import { addVoicemails, JSON_HEADERS, KEY_HEADERS, makeDataFolder, NEW_SLOT, PEER_SETTINGS, SMALL_MAX_UPLOAD_BYTES, startVoicemaild } from '../servers/voicemaild.js'
import { extents, NO_LIMIT, type Props, type Scene } from './scene.js'

const SLOT_CONNECTIONS = 32
const READ_CONNECTIONS = 16
const LISTED = 100

export const SLOTS = `slots, ${SLOT_CONNECTIONS} connections`
export const LIST = `list of ${LISTED}, ${READ_CONNECTIONS} connections`
export const ONE = `one voicemail, ${READ_CONNECTIONS} connections`

export const SLOT_PEER = 'one transaction each'
export const MEMORY_PEER = 'Fastify from memory'

/** Opening slots, against a server that commits each by itself. */
export function slotScene ({ stage, seconds }: Props): Scene {
  return {
    names: [SLOTS],
    prepare: async () => {
      const folder = stage.newFolder('slots')
      const account = await makeDataFolder(folder)
      const bodyFile = join(folder, 'new-slot.json')
      await writeFile(bodyFile, NEW_SLOT)
      const load: Load = { method: 'POST', headers: JSON_HEADERS, targets: [`/accounts/${account}/voicemails`], use: 'around', status: 201, bodyFile }
      const servers = {
        voicemaild: await startVoicemaild(stage, folder, { maxUploadBytes: SMALL_MAX_UPLOAD_BYTES }),
        [SLOT_PEER]: await startScript(stage, stage.newFolder('slots-peer'), 'slots.js', PEER_SETTINGS)
      }
      const contest: Contest = {
        name: SLOTS,
        ...extents(seconds, NO_LIMIT, true),
        subjects: ['voicemaild'],
        contenders: Object.entries(servers).map(([name, server]) => httpContender(stage, name, server, SLOT_CONNECTIONS, () => load))
      }
      return { contests: [contest] }
    }
  }
}

/** Reading rows, against a server that has the same bytes in memory. */
export function listScene ({ stage, seconds, audio }: Props): Scene {
  return {
    names: [LIST, ONE],
    prepare: async isWanted => {
      const folder = stage.newFolder('lists')
      const account = await makeDataFolder(folder)
      const voicemaild = await startVoicemaild(stage, folder)
      await addVoicemails(voicemaild, account, audio['40 KB'].bytes, LISTED)
      const list = `/accounts/${account}/voicemails`
      const listed = await answerOf(voicemaild.port, `${list}?limit=${LISTED}`)
      const id = /"id":"([^"]+)"/.exec(listed.body)?.[1] ?? ''
      const one = await answerOf(voicemaild.port, `${list}/${id}`)
      const peerFolder = stage.newFolder('lists-peer')
      await writeFile(join(peerFolder, 'answers.json'), JSON.stringify([{ ...listed, path: list }, one]))
      const peer = await startScript(stage, peerFolder, 'from-memory.js')
      const contestOf = (name: string, answer: Answer, isFirst: boolean): Contest => {
        // Its signed URLs change from second to second, but not its length.
        const load: Load = { method: 'GET', headers: KEY_HEADERS, targets: [answer.path], use: 'around', status: 200, expectedBytes: Buffer.byteLength(answer.body) }
        return {
          name,
          ...extents(seconds, NO_LIMIT, isFirst),
          subjects: ['voicemaild'],
          contenders: [
            httpContender(stage, 'voicemaild', voicemaild, READ_CONNECTIONS, () => load),
            httpContender(stage, MEMORY_PEER, peer, READ_CONNECTIONS, () => load)
          ]
        }
      }
      return { contests: [contestOf(LIST, listed, true), contestOf(ONE, one, !isWanted(LIST))].filter(({ name }) => isWanted(name)) }
    }
  }
}

interface Answer { path: string, headers: Record<string, string>, body: string }

/** Those that every answer has of its own. */
const OWN_HEADERS = ['connection', 'content-length', 'date', 'keep-alive', 'transfer-encoding']

async function answerOf (port: number, path: string): Promise<Answer> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers: KEY_HEADERS })
  const body = await response.text()
  if (response.status !== 200) throw new Error(`${path} was answered with ${response.status}: ${body}`)
  return { path, headers: Object.fromEntries([...response.headers].filter(([name]) => !OWN_HEADERS.includes(name))), body }
}

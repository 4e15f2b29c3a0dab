import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Load } from '../client.js'
import { httpContender, type Contest } from '../contest.js'
import { answerOf, KEYED_PEER, MEMORY_PEER, startFromMemory } from '../servers/from-memory.js'
import { startScript } from '../servers/peers.js'
import { addVoicemails, JSON_HEADERS, KEY_HEADERS, makeDataFolder, NEW_SLOT, PEER_SETTINGS, SMALL_MAX_UPLOAD_BYTES, startVoicemaild } from '../servers/voicemaild.js'
import { extents, NO_LIMIT, type Props, type Scene } from './scene.js'

const SLOT_CONNECTIONS = 32
const READ_CONNECTIONS = 16
const LISTED = 100
/** Pages of a hundred that are asked for in turn: more than a server is likely to keep answers of. */
const PAGES = 300

export const SLOTS = `slots, ${SLOT_CONNECTIONS} connections`
export const LIST = `list of ${LISTED}, the same again, ${READ_CONNECTIONS} connections`
export const PAGE_LIST = `list of ${LISTED}, another each time, ${READ_CONNECTIONS} connections`
export const ONE = `one voicemail, ${READ_CONNECTIONS} connections`

export const SLOT_PEER = 'one transaction each'
/** What is left of it where nobody waits for the disk. */
export const UNSYNCED_SLOT_PEER = 'one transaction each, never synced'

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
        [SLOT_PEER]: await startScript(stage, stage.newFolder('slots-peer'), 'slots.js', PEER_SETTINGS),
        [UNSYNCED_SLOT_PEER]: await startScript(stage, stage.newFolder('slots-unsynced'), 'slots.js', { ...PEER_SETTINGS, SYNCHRONOUS: 'OFF' })
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
    names: [LIST, PAGE_LIST, ONE],
    prepare: async isWanted => {
      const folder = stage.newFolder('lists')
      const account = await makeDataFolder(folder)
      const voicemaild = await startVoicemaild(stage, folder)
      await addVoicemails(voicemaild, account, audio['40 KB'].bytes, LISTED + PAGES)
      const list = `/accounts/${account}/voicemails`
      const read = async (path: string): ReturnType<typeof answerOf> => await answerOf(voicemaild.port, path, { headers: KEY_HEADERS })
      const ids = idsIn(await read(`${list}?limit=${LISTED + PAGES}`))
      const one = await read(`${list}/${ids[0] ?? ''}`)
      const same = await read(`${list}?limit=${LISTED}`)
      const page = await read(pageTarget(list, ids[0] ?? ''))
      const answers = [{ ...page, path: list }, one]
      const servers = {
        voicemaild,
        [MEMORY_PEER]: await startFromMemory(stage, answers),
        [KEYED_PEER]: await startFromMemory(stage, answers, { dataFolder: folder, account })
      }

      const reads = [
        { name: LIST, answer: same, targets: [same.path] },
        // Before each of the newest: a hundred are left of all of these.
        { name: PAGE_LIST, answer: page, targets: ids.slice(0, PAGES).map(id => pageTarget(list, id)) },
        { name: ONE, answer: one, targets: [one.path] }
      ].filter(({ name }) => isWanted(name))
      const contests = reads.map(({ name, answer, targets }): Contest => {
        // Signed URLs change from second to second, but not the length.
        const load: Load = { method: 'GET', headers: KEY_HEADERS, targets, use: 'around', status: 200, expectedBytes: Buffer.byteLength(answer.body) }
        return {
          name,
          ...extents(seconds, NO_LIMIT, true),
          subjects: ['voicemaild'],
          contenders: Object.entries(servers).map(([name, server]) => httpContender(stage, name, server, READ_CONNECTIONS, () => load))
        }
      })
      return { contests }
    }
  }
}

/** A page of a list that begins after a voicemail. */
export function pageTarget (list: string, id: string): string {
  return `${list}?limit=${LISTED}&before=${id}`
}

const idsIn = ({ body }: { body: string }): string[] => [...body.matchAll(/"id":"([^"]+)"/g)].map(([, id = '']) => id)

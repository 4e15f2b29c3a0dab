import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Extent, Load } from '../client.js'
import { httpContender, type Contender, type Contest } from '../contest.js'
import { addSlots, JSON_HEADERS, KEY_HEADERS, NEW_SLOT, signedUrls, SMALL_MAX_UPLOAD_BYTES, startVoicemaild, type Slot } from '../servers/voicemaild.js'
import type { ServerProcess } from '../stage.js'
import { fillFolder, type Filled } from './growth-data.js'
import { pageTarget } from './json.js'
import { untilQuiet } from './memory.js'
import { extents, NO_LIMIT, type Props, type Scene } from './scene.js'
import { timeStart } from './start.js'

/** What is done with many voicemails and with few, and over how many connections. */
const OPERATIONS = { slot: 32, list: 16, 'another page each time': 16, download: 16, upload: 16, delete: 16 } as const
type Operation = keyof typeof OPERATIONS
const ALL = Object.keys(OPERATIONS) as Operation[]

const FEW = 1000
/** Of many voicemails the account that is looked at has this part. */
const PART_OF_ACCOUNT = 10
const STARTS = 5
const HEARD = 200
/** Pages of a hundred that are asked for in turn, and how many of the oldest voicemails no page begins with. */
const [PAGES, OLDEST] = [300, 100]
/** Ratios that are close to 1 want more rounds. */
const MORE_ROUNDS = 2
/** What a round uploads, and deletes in the end: so few, because few voicemails are to stay few. */
const UPLOADS = 600
const UPLOAD_SECONDS = 60

export const MANY_START = 'start, many voicemails'
export const MANY = 'many voicemails'
export const FEW_NAME = 'few voicemails'
export const growthName = (operation: Operation): string => `growth, ${operation}`
export const GROWTH = ALL.map(growthName)

/** What the same costs in a large and in a small data folder. */
export function growthScene (props: Props): Scene {
  const { stage, tell, voicemails } = props
  const rounds = props.rounds + MORE_ROUNDS
  const limited = { extent: { seconds: UPLOAD_SECONDS, operations: UPLOADS }, warmUp: { seconds: UPLOAD_SECONDS, operations: 2 * UPLOADS } }
  const limitedCount = limited.warmUp.operations + rounds * limited.extent.operations

  interface Side extends Filled { name: string, server: ServerProcess, bodyFile: string, slots: Slot[], uploaded: string[] }

  async function fill (count: number, ofAccount: number): Promise<Filled> {
    tell(`filling a folder with ${count} voicemails`)
    return await fillFolder(stage.newFolder('growth'), { voicemails: count, ofAccount, audio: props.audio['40 KB'] })
  }

  async function open (name: string, filled: Filled): Promise<Side> {
    const { folder, account } = filled
    const slots = addSlots(folder, account, limitedCount, SMALL_MAX_UPLOAD_BYTES)
    const bodyFile = join(folder, 'new-slot.json')
    await writeFile(bodyFile, NEW_SLOT)
    const server = await startVoicemaild(stage, folder, { maxUploadBytes: SMALL_MAX_UPLOAD_BYTES })
    tell(`${name}: waiting until the server has looked over rows and files`)
    await untilQuiet(server)
    return { ...filled, name, server, bodyFile, slots, uploaded: [] }
  }

  function loadOf (side: Side, operation: Operation, { operations }: Extent): Load {
    const path = `/accounts/${side.account}/voicemails`
    const audioFile = props.audio['40 KB'].file
    switch (operation) {
      case 'slot': return { method: 'POST', headers: JSON_HEADERS, targets: [path], use: 'around', status: 201, bodyFile: side.bodyFile }
      case 'list': return { method: 'GET', headers: KEY_HEADERS, targets: [path], use: 'around', status: 200 }
      case 'another page each time': return { method: 'GET', headers: KEY_HEADERS, targets: pages(side).map(id => pageTarget(path, id)), use: 'around', status: 200 }
      case 'download': return { method: 'GET', headers: {}, targets: heard(side), use: 'around', status: 200, expectedFile: audioFile }
      case 'upload': {
        const slots = side.slots.splice(0, operations)
        side.uploaded.push(...slots.map(({ id }) => id))
        const targets = slots.map(({ uploadPath }) => uploadPath)
        return { method: 'PUT', headers: { 'content-type': 'audio/wav' }, targets, use: 'once', status: 200, bodyFile: audioFile }
      }
      case 'delete': {
        const targets = side.uploaded.splice(0, operations).map(id => `${path}/${id}`)
        return { method: 'DELETE', headers: KEY_HEADERS, targets, use: 'once', status: 200 }
      }
    }
  }

  function contestOf (operation: Operation, sides: readonly Side[]): Contest {
    const contender = (side: Side): Contender =>
      httpContender(stage, side.name, side.server, OPERATIONS[operation], extent => loadOf(side, operation, extent))
    const isLimited = operation === 'upload' || operation === 'delete'
    return {
      name: growthName(operation),
      ...isLimited ? limited : extents(props.seconds, NO_LIMIT, true),
      rounds,
      subjects: [MANY],
      contenders: sides.map(contender)
    }
  }

  return {
    names: [...GROWTH, MANY_START],
    prepare: async isWanted => {
      const large = await fill(voicemails, Math.floor(voicemails / PART_OF_ACCOUNT))
      tell('timing the start')
      const starts: number[] = []
      if (isWanted(MANY_START)) for (let n = 0; n < STARTS; n++) starts.push(await timeStart(stage, large.folder))
      const figures = starts.length === 0 ? [] : [{ name: MANY_START, unit: 'ms' as const, values: starts }]
      // What is deleted has been uploaded before.
      const wanted = ALL.filter(operation => isWanted(growthName(operation)) || (operation === 'upload' && isWanted(growthName('delete'))))
      if (wanted.length === 0) return { figures }
      const sides = [await open(MANY, large), await open(FEW_NAME, await fill(FEW, FEW))]
      return { figures, contests: wanted.map(operation => contestOf(operation, sides)) }
    }
  }
}

const DAY_MS = 24 * 3600_000

/** Download URLs of voicemails from all over the account. */
function heard ({ ids }: Filled): string[] {
  const { sign } = signedUrls()
  return spread(ids, HEARD).map(voicemailId => sign({ direction: 'download', voicemailId, expiresAtMs: Date.now() + DAY_MS }))
}

/** Where pages begin, all over the account. */
function pages ({ ids }: Filled): string[] {
  return spread(ids.slice(OLDEST), PAGES)
}

function spread (ids: readonly string[], count: number): string[] {
  const step = Math.max(1, Math.floor(ids.length / count))
  return ids.filter((_id, at) => at % step === 0)
}

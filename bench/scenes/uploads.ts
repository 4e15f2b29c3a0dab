import type { Audio, Size } from '../audio.js'
import { httpContender, type Contender } from '../contest.js'
import { floorContenders } from '../floor/contenders.js'
import type { Peer } from '../servers/peer.js'
import { PEERS } from '../servers/peers.js'
import { addSlots, makeDataFolder, startVoicemaild, uploadsTo } from '../servers/voicemaild.js'
import { extents, NO_LIMIT, over, type Props, type Scene } from './scene.js'

export interface Cell { size: Size, connections: number }

/**
 * Most uploads of one run: the slots have to last for as long as anybody uploads at 40 KB, and the room on the disk for all who take part
 * otherwise.
 */
const MOST: Readonly<Record<Size, (seconds: number) => number>> = {
  '40 KB': seconds => Math.ceil(9000 * seconds),
  '200 KB': () => 1000,
  '2 MB': () => 160
}

const WARM_UP_UPLOADS = 4000
const WARM_UP_CONNECTIONS = 16

export const uploadName = (size: Size, connections: number): string => `upload ${size}, ${over(connections)}`

/** Uploads to voicemaild both ways, all peers, and the disk's floor. */
export function uploadScene (props: Props, cells: readonly Cell[]): Scene {
  const { stage, isQuick, rounds, seconds } = props

  /** A contestant takes part in every contest, with the same server. */
  type Contestant = (audio: Audio, connections: number) => Contender

  async function voicemaild (name: string, durability: 'full' | 'relaxed', slotCount: number): Promise<Contestant> {
    const folder = stage.newFolder(name)
    const account = await makeDataFolder(folder)
    const slots = addSlots(folder, account, slotCount)
    const server = await startVoicemaild(stage, folder, { durability })
    return (audio, connections) => httpContender(stage, name, server, connections, uploadsTo(slots, audio))
  }

  async function peer ({ name, start }: Peer): Promise<Contestant> {
    const { server, upload } = await start(stage, stage.newFolder(name))
    return (audio, connections) => httpContender(stage, name, server, connections, async ({ operations }) => await upload(audio, operations))
  }

  return {
    names: cells.map(({ size, connections }) => uploadName(size, connections)),
    prepare: async isWanted => {
      const wanted = cells.filter(({ size, connections }) => isWanted(uploadName(size, connections)))
      const kinds = wanted.map(cell => ({ ...cell, ...extents(seconds, MOST[cell.size](seconds), false) }))
      const slotCount = kinds.reduce((sum, { extent, warmUp }) => sum + warmUp.operations + rounds * extent.operations, WARM_UP_UPLOADS)
      const contestants = [
        await voicemaild('voicemaild', 'full', slotCount),
        await voicemaild('voicemaild relaxed', 'relaxed', slotCount),
        await peer(PEERS.nginx),
        await peer(PEERS.nodeHttp),
        await peer(PEERS.nodeHttpSynced),
        await peer(PEERS.fastify),
        await peer(PEERS.hashing),
        ...isQuick ? [] : [await peer(PEERS.express), await peer(PEERS.tus), await peer(PEERS.ejabberd)]
      ]
      // With small files, whatever the contest's own: compilers need requests to get warm, not bytes.
      const warmUp = { seconds: extents(seconds, NO_LIMIT, true).warmUp.seconds, operations: WARM_UP_UPLOADS }
      for (const contestant of contestants) await contestant(props.audio['40 KB'], WARM_UP_CONNECTIONS).run(warmUp)
      const floors = await floorContenders(stage)
      const contests = kinds.map(({ size, connections, extent, warmUp }) => {
        const audio = props.audio[size]
        return {
          name: uploadName(size, connections),
          extent,
          warmUp,
          subjects: ['voicemaild', 'voicemaild relaxed'],
          contenders: [...contestants.map(contestant => contestant(audio, connections)), ...floors(audio.file, connections, !isQuick)]
        }
      })
      return { contests }
    }
  }
}

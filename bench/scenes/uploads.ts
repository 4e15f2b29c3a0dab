import type { Size } from '../audio.js'
import type { Extent } from '../client.js'
import { httpContender, type Contender } from '../contest.js'
import { floorContenders } from '../floor/contenders.js'
import { PEERS, type Peer } from '../servers/peers.js'
import { addSlots, makeDataFolder, startVoicemaild, type Durability } from '../servers/voicemaild.js'
import { runsOf, type Props, type Scene } from './scene.js'

/** More than any server here takes in a second: the list of targets has to last. At 2 MB it is the disk's room that has to. */
const MOST_PER_SECOND: Readonly<Record<Size, number>> = { '40 KB': 9000, '200 KB': 2500, '2 MB': 200 }

export const uploadName = (size: Size, connections: number): string => `upload ${size}, ${connections} connections`

/** Uploads of one size over so many connections: voicemaild both ways, all peers, the disk's floor. */
export function uploadScene (props: Props, size: Size, connections: number): Scene {
  const { stage, isQuick } = props
  const audio = props.audio[size]
  const name = uploadName(size, connections)
  const extent: Extent = { seconds: props.seconds, operations: Math.ceil(props.seconds * MOST_PER_SECOND[size]) }

  async function voicemaild (name: string, durability: Durability): Promise<Contender> {
    const folder = await stage.newFolder(name)
    const account = await makeDataFolder(folder)
    const slots = addSlots(folder, account, runsOf(props) * extent.operations)
    const server = await startVoicemaild(stage, folder, durability)
    // Slots that a run left over are lost with it: there are enough.
    return httpContender(stage, name, server, connections, ({ operations }) => ({
      method: 'PUT',
      headers: { 'content-type': 'audio/wav' },
      targets: slots.splice(0, operations).map(({ uploadPath }) => uploadPath),
      use: 'once',
      status: 200,
      bodyFile: audio.file
    }))
  }

  async function peer ({ name, start, upload }: Peer): Promise<Contender> {
    const server = await start(stage, await stage.newFolder(name))
    return httpContender(stage, name, server, connections, ({ operations }) => upload(audio, operations))
  }

  return {
    contests: [name],
    prepare: async () => [{
      name,
      extent,
      contenders: [
        await voicemaild('voicemaild', 'full'),
        await voicemaild('voicemaild relaxed', 'relaxed'),
        await peer(PEERS.nginx),
        await peer(PEERS.nodeHttp),
        await peer(PEERS.nodeHttpSynced),
        await peer(PEERS.fastify),
        ...isQuick ? [] : [await peer(PEERS.express), await peer(PEERS.tus)],
        ...await floorContenders(stage, audio.file, connections)
      ]
    }]
  }
}

import { randomUUID } from 'node:crypto'
import { link, mkdir, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { RANGE_BYTES, SIZES, type Audio, type Size } from '../audio.js'
import type { Load } from '../client.js'
import { httpContender, type Contest } from '../contest.js'
import type { Peer } from '../servers/peer.js'
import { answerOf, MEMORY_PEER, startFromMemory, type Answer } from '../servers/from-memory.js'
import { PEERS } from '../servers/peers.js'
import { addVoicemails, makeDataFolder, startVoicemaild } from '../servers/voicemaild.js'
import type { ServerProcess } from '../stage.js'
import { extents, NO_LIMIT, over, type Props, type Scene } from './scene.js'

export const downloadName = (size: Size, connections: number): string => `download ${size}, ${over(connections)}`
export const rangeName = (size: Size, connections: number): string => `range of 16 KB in ${size}, ${over(connections)}`

const fileCount = (size: Size, isQuick: boolean): number => isQuick && size === '2 MB' ? 50 : 200
const RANGE_CONNECTIONS = 16
/** From here on comparing costs the client about as much as sending costs a fast server. */
const LARGE_BYTES = 100_000

interface Source {
  name: string
  server: ServerProcess
  targets: ReadonlyMap<Size, readonly string[]>
  /** Where they are others than those of whole files. */
  rangeTargets?: ReadonlyMap<Size, readonly string[]>
}

/** Downloads of every size, whole and in part: the servers stay the same, and what they serve too. */
export function downloadScene (props: Props): Scene {
  const { stage, isQuick, seconds } = props
  const wholes = SIZES.flatMap(size => (isQuick ? [16] : [1, 16, 64]).map(connections => ({ size, connections, name: downloadName(size, connections), isRange: false })))
  const ranges = (isQuick ? ['200 KB'] as const : SIZES).map(size => ({ size, connections: RANGE_CONNECTIONS, name: rangeName(size, RANGE_CONNECTIONS), isRange: true }))
  const kinds = [...wholes, ...ranges]

  /** Peers serve the same files, by hard links: each has them in the page cache. */
  async function writeFiles (sizes: readonly Size[]): Promise<Map<Size, string[]>> {
    const folder = stage.newFolder('files')
    const files = new Map<Size, string[]>()
    for (const size of sizes) {
      const paths = Array.from({ length: fileCount(size, isQuick) }, () => join(folder, `${randomUUID()}.wav`))
      for (const path of paths) await writeFile(path, props.audio[size].bytes)
      files.set(size, paths)
    }
    return files
  }

  async function voicemaild (sizes: readonly Size[]): Promise<Source> {
    const folder = stage.newFolder('voicemaild')
    const account = await makeDataFolder(folder)
    const server = await startVoicemaild(stage, folder)
    const targets = new Map<Size, string[]>()
    for (const size of sizes) targets.set(size, await addVoicemails(server, account, props.audio[size].bytes, fileCount(size, isQuick)))
    return { name: 'voicemaild', server, targets }
  }

  /** The same answers without a file, or anything else that has to be looked up: the floor. */
  async function fromMemory ({ server, targets }: Source): Promise<Source> {
    const answers: Answer[] = []
    const sizes = [...targets.keys()]
    const add = async (size: Size, prefix: string, bodyFile: string, headers: Record<string, string>): Promise<[Size, string[]]> => {
      const path = `/${prefix}/${size.replace(' ', '-')}`
      const { body: _bytes, ...answer } = await answerOf(server.port, targets.get(size)?.[0] ?? '', { headers })
      answers.push({ ...answer, path, body: undefined, bodyFile })
      return [size, [path]]
    }
    const wholes = await Promise.all(sizes.map(async size => await add(size, 'whole', props.audio[size].file, {})))
    const parts = await Promise.all(sizes.map(async size => await add(size, 'part', props.audio[size].rangeFile, rangeHeaders(size))))
    return { name: MEMORY_PEER, server: await startFromMemory(stage, answers), targets: new Map(wholes), rangeTargets: new Map(parts) }
  }

  function rangeHeaders (size: Size): { range: string } {
    const { rangeFrom } = props.audio[size]
    return { range: `bytes=${rangeFrom}-${rangeFrom + RANGE_BYTES - 1}` }
  }

  async function peer ({ name, start, downloadTarget }: Peer, files: ReadonlyMap<Size, readonly string[]>): Promise<Source> {
    const folder = stage.newFolder(name)
    await mkdir(join(folder, 'files'))
    const targets = new Map<Size, string[]>()
    if (downloadTarget !== undefined) {
      for (const [size, paths] of files) {
        const names = paths.map(path => basename(path))
        for (const path of paths) await link(path, join(folder, 'files', basename(path)))
        targets.set(size, names.map(downloadTarget))
      }
    }
    const { server, fill } = await start(stage, folder)
    if (fill !== undefined) for (const [size, paths] of files) targets.set(size, await fill(props.audio[size], paths.length))
    return { name, server, targets }
  }

  function loadOf ({ targets, rangeTargets = targets }: Source, { size, isRange }: typeof kinds[number]): Load {
    const audio: Audio = props.audio[size]
    return {
      method: 'GET',
      headers: isRange ? rangeHeaders(size) : {},
      targets: (isRange ? rangeTargets : targets).get(size) ?? [],
      use: 'around',
      status: isRange ? 206 : 200,
      expectedFile: isRange ? audio.rangeFile : audio.file,
      isLarge: !isRange && audio.bytes.length > LARGE_BYTES
    }
  }

  return {
    names: kinds.map(({ name }) => name),
    prepare: async isWanted => {
      const wanted = kinds.filter(({ name }) => isWanted(name))
      const sizes = SIZES.filter(size => wanted.some(kind => kind.size === size))
      const files = await writeFiles(sizes)
      const peers = [PEERS.nginx, PEERS.nodeHttp, PEERS.fastify, ...isQuick ? [] : [PEERS.express, PEERS.ejabberd]]
      const ours = await voicemaild(sizes)
      const sources = [ours, await fromMemory(ours)]
      for (const each of peers) sources.push(await peer(each, files))
      const contests = wanted.map((kind, at): Contest => ({
        name: kind.name,
        ...extents(seconds, NO_LIMIT, at === 0),
        subjects: ['voicemaild'],
        contenders: sources.filter(({ name }) => !(kind.isRange && name === PEERS.ejabberd.name)).map(source => httpContender(stage, source.name, source.server, kind.connections, () => loadOf(source, kind)))
      }))
      return { contests }
    }
  }
}

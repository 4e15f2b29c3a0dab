import { link, mkdir, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { httpContender, type Contest } from '../contest.js'
import { startBehindNginx } from '../servers/behind-nginx.js'
import { PEERS } from '../servers/peers.js'
import { addSlots, addVoicemails, makeDataFolder, startVoicemaild, uploadsTo } from '../servers/voicemaild.js'
import type { ServerProcess } from '../stage.js'
import { extents, NO_LIMIT, over, type Props, type Scene } from './scene.js'

export const PROXIED = 'voicemaild behind nginx'
export const ACCELERATED = 'voicemaild behind nginx, X-Accel-Redirect'
export const proxyName = (what: 'upload' | 'download'): string => `behind nginx, ${what} 200 KB, ${over(CONNECTIONS)}`

const CONNECTIONS = 16
const FILES = 200
const UPLOADS = 1000
/** Room on the disk is kept for thousands of slots. */
const SETTINGS = { maxUploadBytes: 250_000 }

/** What nginx in front costs, and gains: the CPU is that of both. */
export function proxyScene ({ stage, audio, seconds, rounds }: Props): Scene {
  const sound = audio['200 KB']
  const kinds = [
    [undefined, async folder => await startVoicemaild(stage, folder, SETTINGS)],
    [PROXIED, async folder => await startBehindNginx(stage, folder, SETTINGS)],
    [ACCELERATED, async folder => await startBehindNginx(stage, folder, SETTINGS, '/protected-audio/')]
  ] as const satisfies Array<readonly [string | undefined, (folder: string) => Promise<ServerProcess>]>

  return {
    names: [proxyName('upload'), proxyName('download')],
    prepare: async isWanted => {
      const uploadExtents = extents(seconds, UPLOADS, true)
      const slotCount = uploadExtents.warmUp.operations + rounds * UPLOADS
      const contestants = []
      for (const [name = 'voicemaild', start] of kinds) {
        const folder = stage.newFolder(name)
        const account = await makeDataFolder(folder)
        const slots = addSlots(folder, account, slotCount, SETTINGS.maxUploadBytes)
        const server = await start(folder)
        contestants.push({ name, server, slots, paths: await addVoicemails(server, account, sound.bytes, FILES) })
      }
      const folder = stage.newFolder(PEERS.nginx.name)
      await mkdir(join(folder, 'files'))
      const files = Array.from({ length: FILES }, (_none, n) => join(folder, 'files', `${n}.wav`))
      const [first = ''] = files
      await writeFile(first, sound.bytes)
      for (const file of files.slice(1)) await link(first, file)
      const nginx = await PEERS.nginx.start(stage, folder)

      const upload: Contest = {
        name: proxyName('upload'),
        ...uploadExtents,
        subjects: [PROXIED],
        contenders: [
          ...contestants.map(({ name, server, slots }) => httpContender(stage, name, server, CONNECTIONS, uploadsTo(slots, sound))),
          httpContender(stage, PEERS.nginx.name, nginx.server, CONNECTIONS, async ({ operations }) => await nginx.upload(sound, operations))
        ]
      }
      const download: Contest = {
        name: proxyName('download'),
        ...extents(seconds, NO_LIMIT, true),
        subjects: [ACCELERATED],
        contenders: [...contestants, { name: PEERS.nginx.name, server: nginx.server, paths: files.map(file => `/files/${basename(file)}`) }]
          .map(({ name, server, paths }) => httpContender(stage, name, server, CONNECTIONS, () => ({
            method: 'GET', headers: {}, targets: paths, use: 'around', status: 200, expectedFile: sound.file, isLarge: true
          })))
      }
      return { contests: [download, upload].filter(({ name }) => isWanted(name)) }
    }
  }
}

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Audio } from '../audio.js'
import { freePort } from '../../test/free-port.js'
import { run } from '../tools.js'
import { rawUpload, type Peer } from './peer.js'

/** A slot's two paths. */
interface Slot { put: string, get: string }

const SLOTS_SCRIPT = fileURLToPath(new URL('../peers/ejabberd-slots.js', import.meta.url))
/** More than it takes in a second; asking for them takes its time. */
const MOST_SLOTS = 4000

/** mod_http_upload of Debian's ejabberd: anonymous users ask for slots over XMPP, outside the measured time. It syncs nothing and knows no ranges. */
export const ejabberd: Peer = {
  name: 'ejabberd',
  start: async (stage, folder) => {
    const [port, xmppPort] = [await freePort(), await freePort()]
    const config = join(folder, 'ejabberd.yml')
    await mkdir(join(folder, 'files'), { recursive: true })
    await writeFile(config, configOf(folder, port, xmppPort))
    const server = await stage.startServer({
      program: 'erl',
      // As ejabberdctl starts it, but without a cluster, which would leave a daemon behind.
      args: ['-noinput', '+K', 'true', '-pa', await beamFolder(), '-mnesia', 'dir', `"${join(folder, 'mnesia')}"`, '-s', 'ejabberd'],
      env: { EJABBERD_CONFIG_PATH: config, EJABBERD_LOG_PATH: join(folder, 'ejabberd.log'), HOME: folder },
      port
    })
    const slots = async (audio: Audio, count: number): Promise<Slot[]> => await askForSlots(xmppPort, audio, count)
    return {
      server,
      upload: async (audio, count) => rawUpload(audio, (await slots(audio, Math.min(count, MOST_SLOTS))).map(({ put }) => put)),
      fill: async (audio, count) => {
        const targets: string[] = []
        for (const { put, get } of await slots(audio, count)) {
          const response = await fetch(`http://127.0.0.1:${port}${put}`, { method: 'PUT', headers: { 'content-type': 'audio/wav' }, body: audio.bytes })
          if (response.status !== 201) throw new Error(`ejabberd answered with ${response.status}: ${await response.text()}`)
          await response.arrayBuffer()
          targets.push(get)
        }
        return targets
      }
    }
  }
}

async function askForSlots (xmppPort: number, audio: Audio, count: number): Promise<Slot[]> {
  const output = await run(process.execPath, [SLOTS_SCRIPT, String(xmppPort), String(count), String(audio.bytes.length)])
  return output.trim().split('\n').map(line => {
    const [put = '', get = ''] = line.split(' ').map(url => new URL(url).pathname)
    return { put, get }
  })
}

/** Where the package has its compiled modules. */
async function beamFolder (): Promise<string> {
  const path = /^(\/.*)\/ejabberd\.app$/m.exec(await run('dpkg', ['-L', 'ejabberd']))?.[1]
  if (path === undefined) throw new Error('ejabberd: no compiled modules')
  return path
}

function configOf (folder: string, port: number, xmppPort: number): string {
  return `
hosts: [localhost]
loglevel: error
auth_method: [anonymous]
anonymous_protocol: sasl_anon
listen:
  - port: ${xmppPort}
    ip: "127.0.0.1"
    module: ejabberd_c2s
  - port: ${port}
    ip: "127.0.0.1"
    module: ejabberd_http
    request_handlers:
      /upload: mod_http_upload
modules:
  mod_http_upload:
    access: all
    docroot: "${join(folder, 'files')}"
    put_url: "http://127.0.0.1:${port}/upload"
    max_size: 15000000
`
}

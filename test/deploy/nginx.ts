import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'
import { connect } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { promisify } from 'node:util'
import { Agent, request, type Dispatcher } from 'undici'
import { nginxSite } from '../../src/commands/nginx-config.js'
import { readConfig } from '../../src/config.js'
import { makeCertificate } from '../certificates.js'
import { freePort } from '../free-port.js'
import { startService, type Json, type Service, type Testing } from '../helper.js'
import { nginxMain } from '../nginx-main.js'
import { until } from '../wire/connection.js'

export interface Answer { status: number, headers: Dispatcher.ResponseData['headers'], bytes: Buffer, json: () => Json }

/** Debian's nginx, with the printed site, in front of a service. */
export interface Nginx {
  url: string
  port: number
  plainPort: number
  /** What nginx wrote to its error log. */
  errors: () => Promise<string>
  /** Any request over HTTP/1.1, to the path of a URL; from 127.0.0.1 unless another address is given. */
  ask: (url: string, options?: { method?: Dispatcher.HttpMethod, headers?: Record<string, string>, body?: Buffer, from?: string }) => Promise<Answer>
  /** Bytes as they are, over TLS, and whatever comes back until nginx closes the connection, or it is enough. */
  raw: (bytes: string | Buffer, isEnough?: (heard: string) => boolean) => Promise<string>
  http2: () => Promise<ClientHttp2Session>
}

/** Starts nginx for these settings. Its workers are www-data where this process is root, in the group of the service. */
export async function startNginx (t: Pick<Testing, 'teardown'>, settings: Record<string, string>, folder: string): Promise<Nginx> {
  const config = readConfig(settings)
  const port = Number(new URL(config.publicUrl ?? '').port)
  const plainPort = await freePort()
  const { certFile: certificate, keyFile: certificateKey } = await makeCertificate(folder)
  const site = nginxSite(config, { certificate, certificateKey })
    .replaceAll(/^ *listen \[::\].*\n/gm, '')
    .replace('listen 80;', `listen 127.0.0.1:${plainPort};`)
    .replace(`listen ${port} `, `listen 127.0.0.1:${port} `)
  const [file, errorLog] = [join(folder, 'nginx.conf'), join(folder, 'nginx-error.log')]
  const group = (await promisify(execFile)('id', ['-gn'])).stdout.trim()
  await writeFile(file, nginxMain(folder, site, { user: `www-data ${group}`, logLevel: 'info' }))
  const child = spawn('nginx', ['-c', file, '-p', folder, '-e', errorLog], { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.on('data', chunk => { said += String(chunk) })
  const ended = once(child, 'close')
  t.teardown(async () => {
    child.kill('SIGTERM')
    await ended
  })
  await until(async () => {
    if (child.exitCode !== null) throw new Error(`nginx ended: ${said}`)
    return await takesConnections(port)
  })

  const agents = new Map<string, Agent>()
  t.teardown(async () => { for (const agent of agents.values()) await agent.destroy() })
  const agentFrom = (localAddress: string): Agent => {
    const agent = agents.get(localAddress) ?? new Agent({ connect: { rejectUnauthorized: false }, localAddress, headersTimeout: 60_000 })
    agents.set(localAddress, agent)
    return agent
  }
  return {
    url: `https://127.0.0.1:${port}`,
    port,
    plainPort,
    errors: async () => await readFile(errorLog, 'utf8'),
    ask: async (url, { method = 'GET', headers = {}, body, from = '127.0.0.1' } = {}) => {
      const { pathname, search } = new URL(url, 'https://localhost')
      const answer = await request(`https://127.0.0.1:${port}${pathname}${search}`, { method, headers, body: body ?? null, dispatcher: agentFrom(from) })
      const bytes = Buffer.from(await answer.body.arrayBuffer())
      return { status: answer.statusCode, headers: answer.headers, bytes, json: () => JSON.parse(bytes.toString()) }
    },
    raw: async (bytes, isEnough = () => false) => {
      const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false })
      t.teardown(() => { socket.destroy() })
      let heard = ''
      socket.on('data', chunk => {
        heard += String(chunk)
        if (isEnough(heard)) socket.destroy()
      })
      socket.on('error', () => {})
      const closed = once(socket, 'close')
      socket.write(bytes)
      await closed
      return heard
    },
    http2: async () => {
      const session = connectHttp2(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
      session.setMaxListeners(0)
      t.teardown(() => { session.destroy() })
      await once(session, 'connect')
      return session
    }
  }
}

export interface Behind { nginx: Nginx, service: Service, settings: Record<string, string>, start: () => Promise<Service> }

/** A service behind nginx: each knows of the other what an operator would tell it. */
export async function startBehindNginx (t: Testing, own: Record<string, string> = {}): Promise<Behind> {
  const folder = t.testdir()
  await mkdir(folder, { recursive: true })
  const settings = {
    PORT: String(await freePort()),
    PUBLIC_URL: `https://localhost:${await freePort()}`,
    TRUST_PROXY: '127.0.0.1',
    DATA_DIR: join(folder, 'data'),
    ...own
  }
  const start = async (): Promise<Service> => await startService(t, { settings })
  const service = await start()
  return { service, settings, start, nginx: await startNginx(t, settings, folder) }
}

async function takesConnections (port: number): Promise<boolean> {
  const socket = connect({ host: '127.0.0.1', port })
  const isThere = await Promise.race([once(socket, 'connect').then(() => true), once(socket, 'close').then(() => false)]).catch(() => false)
  socket.destroy()
  return isThere
}

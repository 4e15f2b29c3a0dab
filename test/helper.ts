import { readdir, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Agent, fetch as undiciFetch } from 'undici'
import { buildApp, listeningUrl, type App } from '../src/app.js'
import { openData, type Data } from '../src/commands/data.js'
import { readConfig } from '../src/config.js'
import { recover } from '../src/domain/recovery.js'
import { makeCertificate } from './certificates.js'
import { EXECUTABLE, noteStart, startServer } from './process.js'

export * from './samples.js'

/** What a test needs of tap: a folder of its own, and a way to clean up. */
export interface Testing {
  testdir: () => string
  teardown: (run: () => unknown) => void
}

export interface ServiceOptions {
  /** Settings beside PORT=0, LOG_LEVEL=trace and a data folder of the test's own. */
  settings?: Record<string, string>
  /** Milliseconds since 1970; the real time unless given. */
  clock?: () => number
  /** Changes the stores before the app is built, to put faults in. */
  meddle?: (data: Data) => void
  /** What `call` asks with. */
  fetch?: (url: string, init: { method: string, headers: Record<string, string>, body?: string }) => Promise<Pick<Response, 'status' | 'headers' | 'text'>>
  /** The test looks at `app`. */
  looksInside?: boolean
}

/** A service that speaks TLS by itself, with HTTP/2 and HTTP/1.1. */
export interface TlsService extends Service {
  certFile: string
  keyFile: string
  /** The certificate, for clients to trust. */
  ca: string
}

/** A service that listens on a free port of 127.0.0.1, with an admin's key and an account. */
export interface Service extends Running {
  dataFolder: string
  adminKey: string
  /** Sends JSON as the admin, unless other headers are given, and reads JSON. */
  call: (method: string, path: string, body?: unknown, headers?: Record<string, string>) => Promise<Answer>
  /** Adds an account and a key of the role user. */
  addUser: (sipUri?: string) => Promise<{ id: number, key: string }>
  /** Opens a slot, of `audio/wav` unless given; `path` is that of its upload URL. */
  openSlot: (accountId: number, contentType?: string) => Promise<{ id: string, path: string, uploadUrl: string }>
  /** Names of all files below `incoming` and `audio`. */
  files: () => Promise<string[]>
}

/** What serves, in this process or as one of its own. */
interface Running {
  /** Only where the test said that it looks inside. */
  app: App
  /** Of the process that serves. */
  pid: number
  url: string
  data: Data
  /** Log lines so far. */
  log: string[]
  close: () => Promise<void>
}

export interface Answer { status: number, headers: Headers, body: Json }
/** Whatever JSON.parse returns: a test asserts on it key by key. */
export type Json = ReturnType<typeof JSON.parse>

/** As `startService`, with a certificate beside its data folder. */
export async function startTlsService (t: Testing, { settings = {}, ...options }: ServiceOptions = {}): Promise<TlsService> {
  const folder = t.testdir()
  const { certFile, keyFile } = await makeCertificate(folder)
  const ca = await readFile(certFile, 'utf8')
  const dispatcher = new Agent({ connect: { ca } })
  const service = await startService(t, {
    ...options,
    settings: { DATA_DIR: join(folder, 'data'), TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile, ...settings },
    fetch: async (url, init) => await undiciFetch(url, { ...init, dispatcher })
  })
  t.teardown(async () => { await dispatcher.destroy() })
  return Object.assign(service, { certFile, keyFile, ca })
}

/**
 * Starts it in this process; where the tests run against the executable, as that program, unless the test wants a clock or a fault, or
 * looks inside.
 */
export async function startService (t: Testing, options: ServiceOptions = {}): Promise<Service> {
  const dataFolder = options.settings?.['DATA_DIR'] ?? join(t.testdir(), 'data')
  const settings = { PORT: '0', LOG_LEVEL: 'trace', MIN_FREE_DISK: '0', ...options.settings, DATA_DIR: dataFolder }
  const isOutside = EXECUTABLE !== undefined && (options.clock ?? Date.now) === Date.now && !('meddle' in options) && options.looksInside !== true
  const running = isOutside ? await startOutside(t, settings) : await startInside(settings, options)
  const { url, data, close } = running
  const { adminKey } = data.keys

  const call: Service['call'] = async (method, path, body, headers = { 'x-api-key': adminKey }) => {
    const response = await (options.fetch ?? fetch)(url + path, {
      method,
      headers: body === undefined ? headers : { 'content-type': 'application/json', ...headers },
      ...body !== undefined && { body: JSON.stringify(body) }
    })
    const text = await response.text()
    const isJson = /json/.test(response.headers.get('content-type') ?? '')
    return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text }
  }

  let users = 0
  t.teardown(close)
  const more: Omit<Service, keyof Running> = {
    dataFolder,
    adminKey,
    call,
    addUser: async (sipUri = `sip:user${++users}@sip.example.org`) => {
      const { body: { id } } = await call('POST', '/accounts', { sip_uri: sipUri })
      const { body: { key } } = await call('POST', `/accounts/${id}/api_keys`, { name: 'test' })
      return { id, key }
    },
    openSlot: async (accountId, contentType = 'audio/wav') => {
      const { body } = await call('POST', `/accounts/${accountId}/voicemails`, { sip_from: 'sip:alice@sip.example.org', content_type: contentType })
      return { id: body.id, uploadUrl: body.upload_url, path: new URL(body.upload_url).pathname }
    },
    files: async () => (await readdir(dataFolder, { recursive: true, withFileTypes: true }))
      .filter(entry => entry.isFile() && /[/\\](incoming|audio)/.test(entry.parentPath))
      .map(entry => entry.name)
  }
  // Not spread, which would ask for `app`.
  return Object.assign(running, more)
}

async function startInside (settings: Record<string, string>, { clock = Date.now, meddle = () => {} }: ServiceOptions): Promise<Running> {
  const config = readConfig(settings)
  const data = await openData(config, clock)
  await recover(data)
  meddle(data)
  const log: string[] = []
  const app = await buildApp(config, { ...data, logStream: { write: line => { log.push(line) } } })
  await app.listen({ ...config.listen })
  return {
    app,
    pid: process.pid,
    url: listeningUrl(app),
    data,
    log,
    close: async () => {
      await app.close()
      await data.close()
    }
  }
}

/** The data folder is opened beside the program, as a command does. */
async function startOutside (t: Testing, settings: Record<string, string>): Promise<Running> {
  const server = await startServer(t, { cwd: tmpdir(), settings })
  await noteStart('service')
  const data = await openData(readConfig(settings), Date.now)
  const log: string[] = []
  const { stdout, pid } = server.child
  if (stdout === null || pid === undefined) throw new Error('Its standard output cannot be read.')
  createInterface(stdout).on('line', line => { log.push(`${line}\n`) })
  let closing: Promise<void> | undefined
  const close = async (): Promise<void> => {
    const code = await server.stop('SIGTERM')
    await data.close()
    if (code !== 0) throw new Error(`The program ended with ${code}: ${server.err()}`)
  }
  return {
    get app (): App { throw new Error('A test that looks inside has to say so.') },
    pid,
    url: server.url,
    data,
    log,
    close: async () => { await (closing ??= close()) }
  }
}

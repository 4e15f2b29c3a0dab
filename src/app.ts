import fastify, { LogController, type FastifyInstance } from 'fastify'
import { nanoid } from 'nanoid'
import type { Config } from './config.js'
import { createAccessRecord } from './domain/access-record.js'
import { createAccounts } from './domain/accounts.js'
import { createCallers } from './domain/callers.js'
import type { Clock } from './domain/clock.js'
import { sha256Hex } from './domain/secrets.js'
import { createSignedUrls } from './domain/signed-url.js'
import { sweep } from './domain/sweeper.js'
import { createUploads } from './domain/uploads.js'
import { createVoicemails } from './domain/voicemails.js'
import type { Keys } from './keys.js'
import { sendTogether } from './plugins/answers-together.js'
import { createAuth } from './plugins/auth.js'
import { takeJson } from './plugins/json-bodies.js'
import { limitBodyTime } from './plugins/body-deadline.js'
import { gatherLines } from './plugins/log-lines.js'
import { countRequests } from './plugins/metrics.js'
import { collectMethods, createSocketAnswers, limitServer } from './plugins/node-answers.js'
import { describeApi } from './plugins/openapi.js'
import { answerProblems, answerUnrouted } from './plugins/problems.js'
import { logRequests } from './plugins/request-log.js'
import { useSchemas } from './plugins/schema-compilers.js'
import { addSecurityHeaders } from './plugins/security-headers.js'
import { stopInOrder } from './plugins/stopping.js'
import { sweepRegularly } from './plugins/sweeping.js'
import { createTls } from './plugins/tls.js'
import { TlsServer } from './plugins/tls-server.js'
import { drainUnreadBodies } from './plugins/unread-body.js'
import { accountRoutes, ownAccountRoutes } from './routes/accounts.js'
import { apiKeyRoutes } from './routes/api-keys.js'
import { audioRoutes } from './routes/audio.js'
import { healthRoutes } from './routes/health.js'
import { createJson } from './routes/json.js'
import { voicemailRoutes } from './routes/voicemails.js'
import type { AccountStore } from './stores/account-store.js'
import type { AudioStore } from './stores/audio-store.js'
import type { EventStore } from './stores/event-store.js'
import type { UpkeepStore } from './stores/upkeep-store.js'
import type { VoicemailStore } from './stores/voicemail-store.js'
import { readVersion } from './installation.js'

export interface AppDependencies {
  accountStore: AccountStore
  voicemailStore: VoicemailStore
  audioStore: AudioStore
  eventStore: EventStore
  upkeepStore: UpkeepStore
  /** Throws what keeps the database from being written. */
  probeRows: () => void
  keys: Keys
  clock: Clock
  /** Where log lines go; standard output unless given. */
  logStream?: { write: (line: string) => void }
}

export type App = FastifyInstance

/** The whole service, wired. It listens to nothing yet. */
export async function buildApp (config: Config, deps: AppDependencies): Promise<App> {
  const { accountStore, voicemailStore, audioStore, keys, clock } = deps
  const accounts = createAccounts(deps)
  const callers = createCallers({ accountStore, clock, adminKeySha256: sha256Hex(keys.adminKey), ...config.claims })
  const signedUrls = createSignedUrls({ key: keys.signingKey, previousKeys: config.previousSigningKeys, clock })
  const uploads = createUploads(deps)
  const voicemails = createVoicemails({ ...deps, ...config, uploads })
  const access = createAccessRecord(deps)

  const socketAnswers = createSocketAnswers()
  const tls = config.tls && createTls(config.tls, config.pace)
  const app = fastify({
    logger: { level: config.logLevel, base: null, stream: deps.logStream ?? gatherLines(text => { process.stdout.write(text) }) },
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'request_id' }),
    genReqId: () => nanoid(12),
    trustProxy: config.trustProxy,
    bodyLimit: 64 * 1024,
    // The recorder calls /api/...: one rewrite, and every path is served at the root and below /api.
    rewriteUrl: ({ url = '/' }) => url.replace(/^(?:https?:\/\/[^/?#]*)?\/api(?=\/)/, ''),
    routerOptions: { maxParamLength: 2048 },
    frameworkErrors: answerUnrouted,
    clientErrorHandler: socketAnswers.answerUnparsable,
    // stopInOrder answers in our words.
    return503OnClosing: false,
    ...tls !== undefined && { serverFactory: tls.serverFactory }
  })
  limitServer(app.server, config.pace)
  tls?.renewRegularly(app)
  socketAnswers.watch(app.server)
  takeJson(app)
  useSchemas(app)
  answerProblems(app)
  addSecurityHeaders(app)
  drainUnreadBodies(app)
  logRequests(app)
  sendTogether(app)
  stopInOrder(app, { timeoutMs: config.stopTimeoutMs, settled: uploads.settled })
  sweepRegularly(app, async signal => await sweep({ ...deps, ...config, graceMs: 0, isReceiving: uploads.isReceiving }, { signal }))
  const metrics = countRequests(app, { openSlots: async () => (await voicemailStore.openSlots(clock())).count })
  const auth = await createAuth(app, { callers, jwt: config.jwt, failuresPerMinute: config.authFailuresPerMinute })
  const answerOtherMethods = collectMethods(app)
  await describeApi(app, readVersion())

  let ownUrl = ''
  const publicUrl = (): string => config.publicUrl ?? (ownUrl ||= listeningUrl(app))
  const json = createJson({ signedUrls, clock, downloadUrlTtlMs: config.downloadUrlTtlMs, publicUrl })
  const ready = async (): Promise<void> => {
    deps.probeRows()
    await audioStore.probe()
    await voicemails.requireDisk()
  }

  // Anybody, and whoever holds a signed URL.
  await app.register(healthRoutes({ metrics, ready }))
  await app.register(audioRoutes({
    signedUrls, uploads, voicemails, access, json, metrics, pace: config.pace, accelPrefix: config.accelPrefix
  }))
  // Callers with a key or a token.
  await app.register(async app => {
    app.addHook('onRequest', auth.authenticate)
    limitBodyTime(app, socketAnswers)
    await app.register(voicemailRoutes({ voicemails, access, auth, json, downloadUrlTtlMs: config.downloadUrlTtlMs, clock }))
    await app.register(ownAccountRoutes({ auth }))
    await app.register(accountRoutes({ accounts, auth }))
    await app.register(apiKeyRoutes({ accounts, auth }))
  })
  answerOtherMethods()
  return app
}

/** The URL that a listening app has by itself; a wildcard address is told as localhost. Empty where it listens on a Unix socket. */
export function listeningUrl ({ server }: Pick<App, 'server'>): string {
  const address = server.address()
  if (address === null || typeof address === 'string') return ''
  const host = address.address === '::' || address.address === '0.0.0.0' ? 'localhost' : address.address
  return `${server instanceof TlsServer ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${address.port}`
}

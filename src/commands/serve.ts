import { once } from 'node:events'
import type { FastifyBaseLogger } from 'fastify'
import { buildApp } from '../app.js'
import type { Config } from '../config.js'
import type { Clock } from '../domain/clock.js'
import { recover } from '../domain/recovery.js'
import { lockFolder } from '../stores/folder-lock.js'
import { inDataFolder, openData, type Data } from './data.js'
import { listenWhere } from './listening.js'
import { CommandError, type Output } from './output.js'
import { createServiceManager, inheritedSocket, type Environment } from './service-manager.js'
import { checkFiles } from './upkeep.js'

/** Serves until a signal comes: requests under way are finished, new ones refused, and the data folder is closed. systemd, where it started this, is told. */
export async function serve (config: Config, clock: Clock, { tell }: Output, env: Environment): Promise<void> {
  const systemd = createServiceManager(env, tell)
  const unlock = await inDataFolder(config.dataFolder, async () => lockFolder(config.dataFolder))
  if (unlock === undefined) throw new CommandError(`Another voicemaild serves ${config.dataFolder} already.`)
  try {
    const data = await openData(config, clock)
    // From here on files are made by those alone who say whether the group may read them: audio, where nginx sends it.
    if (config.accelPrefix !== undefined) process.umask(0o027)
    try {
      const recovered = await recover(data)
      const app = await buildApp(config, data)
      const stop = stopSignal()
      tell(`voicemaild listens on ${await listenWhere(app, config, inheritedSocket(env))}`)
      tell(`Data: ${config.dataFolder}`)
      tell(`Admin API key: ${data.keys.adminKeyFile ?? 'the setting ADMIN_API_KEY'}`)
      if (recovered.uploads + recovered.removals > 0) {
        tell(`Ended what was cut off: ${recovered.uploads} uploads, ${recovered.removals} deletions`)
      }
      if (recovered.failed.length > 0) tell(`The disk does not let go of ${recovered.failed.length} files; the next start tries again`)
      systemd.ready()
      const stopLooking = new AbortController()
      const looked = lookAround(config, data, app.log, stopLooking.signal)
      await stop
      systemd.stopping()
      stopLooking.abort()
      await app.close()
      await looked
    } finally {
      await data.close()
    }
  } finally {
    unlock()
  }
}

/** In the background, because with a million files it takes a while: what does not fit is told to the log. */
async function lookAround (config: Config, data: Data, log: FastifyBaseLogger, signal: AbortSignal): Promise<void> {
  try {
    const { findings } = await checkFiles(config, data, { signal })
    for (const { kind, path, voicemail } of findings.slice(0, 10)) log.warn({ kind, path, voicemail }, 'rows and files do not fit')
    if (findings.length > 0) log.warn({ findings: findings.length }, 'voicemaild check tells more')
  } catch (error) {
    log.error({ err: error }, 'the look around at start failed')
  }
}

/** The first signal is waited for; with a second one, whichever it is, the system ends the process. */
async function stopSignal (): Promise<void> {
  const listening = new AbortController()
  try {
    await Promise.race(['SIGTERM', 'SIGINT'].map(async name => await once(process, name, listening)))
  } finally {
    listening.abort()
  }
}

import { once } from 'node:events'
import { buildApp, listeningUrl } from '../app.js'
import type { Config } from '../config.js'
import type { Clock } from '../domain/clock.js'
import { recover } from '../domain/recovery.js'
import { lockFolder } from '../stores/folder-lock.js'
import { endUnusedConnections } from './closing.js'
import { inDataFolder, openData } from './data.js'
import { CommandError, type Output } from './output.js'

/** Serves until a signal comes: requests under way are finished, new ones refused, and the data folder is closed. */
export async function serve (config: Config, clock: Clock, { tell }: Output): Promise<void> {
  const unlock = await inDataFolder(config.dataFolder, async () => lockFolder(config.dataFolder))
  if (unlock === undefined) throw new CommandError(`Another voicemaild serves ${config.dataFolder} already.`)
  try {
    const data = await openData(config, clock)
    try {
      const recovered = await recover(data)
      const app = await buildApp(config, data)
      const endUnused = endUnusedConnections(app.server)
      const stop = stopSignal()
      await listen(() => app.listen({ host: config.host, port: config.port }), config)
      tell(`voicemaild listens on ${listeningUrl(app)}`)
      tell(`Data: ${config.dataFolder}`)
      tell(`Admin API key: ${data.keys.adminKeyFile ?? 'the setting ADMIN_API_KEY'}`)
      if (recovered.uploads + recovered.removals > 0) {
        tell(`Ended what was cut off: ${recovered.uploads} uploads, ${recovered.removals} deletions`)
      }
      await stop
      endUnused()
      await app.close()
    } finally {
      await data.close()
    }
  } finally {
    unlock()
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

async function listen (start: () => Promise<unknown>, { host, port }: Config): Promise<void> {
  try {
    await start()
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'an error'
    throw new CommandError(`HOST and PORT: cannot listen on ${host}:${port} (${code}).`)
  }
}

import { once } from 'node:events'
import { lstatSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { listeningUrl, type App } from '../app.js'
import type { Config } from '../config.js'
import { CommandError } from './output.js'

/**
 * Listens where the settings say, or on the socket that this process was started with. Returns the URL, or the path of the Unix socket.
 * Throws CommandError.
 */
export async function listenWhere (app: App, { listen, publicUrl }: Config, inheritedFd: number | undefined): Promise<string> {
  const { setting, place, start } = wayIn(app, listen, inheritedFd)
  try {
    await start()
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'an error'
    throw new CommandError(`${setting}: cannot listen on ${place} (${code}).`)
  }
  const url = listeningUrl(app)
  if (url !== '') return url
  if (publicUrl === undefined) {
    await app.close()
    throw new CommandError('PUBLIC_URL: expected the URL of the proxy in front of the Unix socket, found none.')
  }
  const address = app.server.address()
  return typeof address === 'string' ? address : place
}

/** Which setting says where, the place in words, and what listens there. */
function wayIn (app: App, listen: Config['listen'], inheritedFd: number | undefined): { setting: string, place: string, start: () => Promise<unknown> } {
  if (inheritedFd !== undefined) return { setting: 'LISTEN_FDS', place: `file descriptor ${inheritedFd}`, start: async () => { await listenOnDescriptor(app, inheritedFd) } }
  const { path } = listen
  if (path !== undefined) return { setting: 'LISTEN', place: path, start: async () => { await listenOnPath(app, path) } }
  return { setting: 'HOST and PORT', place: `${listen.host}:${listen.port}`, start: async () => await app.listen({ ...listen }) }
}

/** Fastify itself would look up a host's addresses. */
async function listenOnDescriptor (app: App, fd: number): Promise<void> {
  await app.ready()
  app.server.listen({ fd })
  await once(app.server, 'listening')
}

/** Open to every user of the machine, as a port of the loopback is; the folder that it lies in may narrow that. */
async function listenOnPath (app: App, path: string): Promise<void> {
  if (await isAbandoned(path)) rmSync(path)
  await app.listen({ path, readableAll: true, writableAll: true })
}

/** Whether a socket is there of a process that died, and could not take it away. */
async function isAbandoned (path: string): Promise<boolean> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return false
  const socket = connect(path)
  try {
    await once(socket, 'connect')
    return false
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ECONNREFUSED'
  } finally {
    socket.destroy()
  }
}

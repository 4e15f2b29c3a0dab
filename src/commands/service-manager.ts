import { execFile } from 'node:child_process'
import { CommandError, type Output } from './output.js'

export type Environment = Readonly<Record<string, string | undefined>>

/** The first file descriptor that systemd hands over, SD_LISTEN_FDS_START of sd_listen_fds(3). */
const FIRST_FD = 3

/** The listening socket that this process was started with, as sd_listen_fds(3) has it. Throws CommandError where there are several. */
export function inheritedSocket ({ LISTEN_PID: pid, LISTEN_FDS: count }: Environment): number | undefined {
  if (pid !== String(process.pid) || count === undefined || count === '0') return undefined
  if (count !== '1') throw new CommandError(`LISTEN_FDS: expected one socket, found ${count}.`)
  return FIRST_FD
}

/** Who started this process and waits for word of it, as in sd_notify(3). Without one nothing is sent. */
export interface ServiceManager {
  /** The port is open. From now on the watchdog is fed, where there is one, for as long as the event loop turns. */
  ready: () => void
  /** The end has begun. */
  stopping: () => void
}

/**
 * Speaks through `systemd-notify`, which comes with systemd: Node has no datagram sockets of Unix, and the libraries that have are compiled against
 * systemd's headers. So the unit needs `NotifyAccess=all`.
 */
export function createServiceManager (env: Environment, tell: Output['tell']): ServiceManager {
  if (env['NOTIFY_SOCKET'] === undefined) return { ready: () => {}, stopping: () => {} }
  const notify = (...states: string[]): void => {
    execFile('systemd-notify', states, { env: { ...env } }, error => { if (error !== null) tell(`systemd-notify: ${error.message.trim()}`) })
  }
  return {
    ready: () => {
      notify('READY=1', 'STATUS=Serving')
      const intervalMs = feedEveryMs(env)
      if (intervalMs !== undefined) setInterval(() => { notify('WATCHDOG=1') }, intervalMs).unref()
    },
    stopping: () => { notify('STOPPING=1', 'STATUS=Finishing what is under way') }
  }
}

/** Three times within what the watchdog waits, as sd_watchdog_enabled(3) tells it. */
function feedEveryMs ({ WATCHDOG_USEC: limitUs, WATCHDOG_PID: pid }: Environment): number | undefined {
  const limitMs = Number(limitUs) / 1000
  if (!(limitMs > 0) || (pid !== undefined && pid !== String(process.pid))) return undefined
  return Math.ceil(limitMs / 3)
}

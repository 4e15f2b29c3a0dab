import type { FastifyInstance } from 'fastify'
import { AppError } from '../errors.js'

export interface StoppingOptions {
  /** How long requests under way may take to finish. */
  timeoutMs: number
  /** Resolves when nothing that was begun is still being written. */
  settled: () => Promise<void>
}

/** An orderly end: requests under way finish, those that still come on open connections are 503, and after a while the rest is cut off. */
export function stopInOrder (app: FastifyInstance, { timeoutMs, settled }: StoppingOptions): void {
  let isStopping = false
  let timer: NodeJS.Timeout | undefined
  app.addHook('onRequest', (_request, _reply, done) => {
    done(isStopping ? new AppError('shutting_down', 'This server is stopping.', { headers: { connection: 'close', 'retry-after': '5' } }) : undefined)
  })
  app.addHook('preClose', async () => {
    isStopping = true
    timer = setTimeout(() => { app.server.closeAllConnections() }, timeoutMs)
  })
  // By now the server is closed, if it ever listened.
  app.addHook('onClose', async () => {
    clearTimeout(timer)
    await settled()
  })
}

import type { FastifyInstance } from 'fastify'

const EVERY_MS = 60_000

/** Sweeps once a minute while the app listens; closing waits for the batch that runs. */
export function sweepRegularly (app: FastifyInstance, sweep: (signal: AbortSignal) => Promise<unknown>, everyMs = EVERY_MS): void {
  const stop = new AbortController()
  let running = Promise.resolve()
  const run = async (): Promise<void> => {
    try {
      await sweep(stop.signal)
    } catch (error) {
      app.log.error({ err: error }, 'sweeping failed; it is tried again')
    }
  }
  // One after the other: a long sweep is not overtaken by the next.
  const timer = setInterval(() => { running = running.then(run) }, everyMs)
  timer.unref()
  app.addHook('onClose', async () => {
    clearInterval(timer)
    stop.abort()
    await running
  })
}

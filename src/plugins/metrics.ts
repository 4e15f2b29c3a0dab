import type { FastifyInstance } from 'fastify'
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'

export interface Metrics {
  /** `outcome` is `stored`, `repeated` for bytes that were there already, or the code of the problem. */
  upload: (outcome: string, bytes: number) => void
  download: (bytes: number) => void
  /** The text that Prometheus reads, and its type. */
  read: () => Promise<{ contentType: string, text: string }>
}

/** Counts what passes, in a registry of this app's own. */
export function countRequests (app: FastifyInstance, { openSlots }: { openSlots: () => Promise<number> }): Metrics {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry })
  const requests = new Histogram({
    name: 'http_request_duration_seconds',
    help: 'Requests by method, route and status.',
    labelNames: ['method', 'route', 'status'] as const,
    buckets: [0.005, 0.025, 0.1, 0.5, 2.5, 10, 60],
    registers
  })
  const uploads = new Counter({ name: 'voicemaild_uploads_total', help: 'Uploads by outcome.', labelNames: ['outcome'] as const, registers })
  const uploaded = new Counter({ name: 'voicemaild_upload_bytes_total', help: 'Bytes of audio stored.', registers })
  const downloaded = new Counter({ name: 'voicemaild_download_bytes_total', help: 'Bytes of audio sent.', registers })
  registry.registerMetric(new Gauge({
    name: 'voicemaild_open_slots',
    help: 'Slots that may still be filled.',
    registers: [],
    async collect () { this.set(await openSlots()) }
  }))

  app.addHook('onResponse', (request, reply, done) => {
    requests.observe({ method: request.method, route: request.routeOptions.url ?? 'none', status: reply.statusCode }, reply.elapsedTime / 1000)
    done()
  })

  return {
    upload: (outcome, bytes) => {
      uploads.inc({ outcome })
      if (outcome === 'stored') uploaded.inc(bytes)
    },
    download: bytes => { downloaded.inc(bytes) },
    read: async () => ({ contentType: registry.contentType, text: await registry.metrics() })
  }
}

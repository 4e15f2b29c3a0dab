import type { FastifyBaseLogger, FastifyInstance, FastifyServerFactory } from 'fastify'
import { CertificateError, readCertificate, type Certificate, type CertificateFiles } from '../certificate.js'
import { connectionTimeoutMs } from './node-answers.js'
import { TIMES, TlsServer } from './tls-server.js'

/** How often the files are looked at: two reads of a few kilobytes. */
const LOOK_EVERY_MS = 30_000

/** What TLS is spoken with, and where its successor will be. */
export interface TlsOptions extends CertificateFiles { certificate: Certificate }

/** HTTPS for an app. */
export interface Tls {
  /** For Fastify, which may want one for each address of a host name. */
  serverFactory: FastifyServerFactory
  /** Looks for a new certificate while the app listens, and at SIGHUP. */
  renewRegularly: (app: FastifyInstance, everyMs?: number) => void
}

export function createTls (options: TlsOptions, pace: { idleTimeoutMs: number }): Tls {
  const servers: TlsServer[] = []
  let { certificate } = options
  const take = (renewed: Certificate): void => {
    certificate = renewed
    for (const server of servers) server.renew(renewed)
  }
  return {
    serverFactory: handler => {
      const server = new TlsServer(certificate, { ...TIMES, stalledMs: connectionTimeoutMs(pace) })
      server.on('request', handler)
      servers.push(server)
      return server
    },
    renewRegularly: (app, everyMs = LOOK_EVERY_MS) => {
      const look = watchCertificate(options, { take, log: app.log })
      const timer = setInterval(look, everyMs).unref()
      process.on('SIGHUP', look)
      app.addHook('onClose', async () => {
        clearInterval(timer)
        process.off('SIGHUP', look)
      })
    }
  }
}

/**
 * Returns what looks at the files: at what is in them, because a link that points elsewhere, or a file system of another machine, tells nobody.
 * Where certificate and key do not fit (one of them was written and the other not yet) the old ones stay, it is logged once, and looked at again.
 */
export function watchCertificate (options: TlsOptions, { take, log }: { take: (certificate: Certificate) => void, log: FastifyBaseLogger }): () => void {
  let { certificate } = options
  let complaint = ''
  return () => {
    try {
      const found = readCertificate(options, certificate)
      complaint = ''
      if (found === certificate) return
      take(found)
      certificate = found
      log.info('the certificate has been renewed')
    } catch (error) {
      const message = error instanceof CertificateError ? error.message : 'OpenSSL did not take it'
      if (message !== complaint) log.error({ err: error }, `a new certificate cannot be used, and the old one stays: ${message}`)
      complaint = message
    }
  }
}

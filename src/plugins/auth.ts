import type { FastifyInstance, FastifyRequest } from 'fastify'
import jwt from '@fastify/jwt'
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible'
import { AppError } from '../errors.js'
import type { Caller, Callers } from '../domain/callers.js'
import type { Account } from '../domain/rows.js'

/** How tokens are verified: a shared secret (HS256), or a public key with the one algorithm that its kind takes. */
export type JwtSettings = {
  issuer: string | undefined
  audience: string | undefined
} & ({ secret: string } | { publicKey: string, algorithm: 'RS256' | 'ES256' | 'EdDSA' })

export interface AuthOptions {
  callers: Callers
  jwt: JwtSettings | undefined
  /** Failed attempts of one address in a minute; from then on they are answered with 429. */
  failuresPerMinute: number
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Set on every request that passed `authenticate`. */
    caller: Caller
    /** The account that `{id|me}` in the path means to the caller; set where `resolveAccount` was passed. */
    account: Account
    /** The code of the problem that ended the request, if one did. */
    outcome: string | undefined
  }
}

export interface Auth {
  /** An onRequest hook: 401 for nobody, 403 for a valid token of nobody known. */
  authenticate: (request: FastifyRequest) => Promise<void>
  /** An onRequest hook for what only admins may do. */
  requireAdmin: (request: FastifyRequest) => Promise<void>
  /** An onRequest hook for paths below `/accounts/:id`: the caller's own account, or any to an admin. */
  resolveAccount: (request: FastifyRequest) => Promise<void>
}

/** Who is calling. The three hooks are the whole of it: a scope is what it adds. */
export async function createAuth (app: FastifyInstance, { callers, jwt: settings, failuresPerMinute }: AuthOptions): Promise<Auth> {
  const failures = new RateLimiterMemory({ points: failuresPerMinute, duration: 60 })
  if (settings !== undefined) await app.register(jwt, verifierOf(settings))
  app.decorateRequest('outcome', undefined)

  /** Good credentials pass however many bad ones came from the same address: behind a proxy that is everybody's. */
  async function fail (request: FastifyRequest, sentence: string): Promise<never> {
    const overLimit: unknown = await failures.consume(request.ip).then(() => undefined, (over: unknown) => over)
    if (overLimit instanceof RateLimiterRes) {
      throw new AppError('too_many_failures', 'Too many failed attempts from this address.', {
        headers: { 'retry-after': String(Math.ceil(overLimit.msBeforeNext / 1000)) }
      })
    }
    throw unauthorized(sentence, ', error="invalid_token"')
  }

  async function callerOf (request: FastifyRequest): Promise<Caller> {
    const { authorization, 'x-api-key': key } = request.headers
    const [, token = ''] = /^bearer +(.*)$/i.exec(authorization ?? '') ?? []
    if (token !== '') {
      const claims = settings === undefined ? undefined : verify(app, token)
      return claims === undefined ? await fail(request, 'The token is not valid here.') : await callers.byClaims(claims)
    }
    if (typeof key === 'string' && key !== '') return await callers.byApiKey(key) ?? await fail(request, 'The key is not valid.')
    throw unauthorized('An API key in x-api-key, or a token in Authorization, is needed.')
  }

  return {
    authenticate: async request => { request.caller = await callerOf(request) },
    requireAdmin: async ({ caller }) => {
      if (caller.role !== 'admin') throw new AppError('forbidden', 'Only an admin may do this.')
    },
    resolveAccount: async request => {
      const { id } = request.params as { id: string }
      request.account = await callers.accountFor(request.caller, id)
    }
  }
}

function unauthorized (sentence: string, parameters = ''): AppError {
  return new AppError('unauthorized', sentence, { headers: { 'www-authenticate': `Bearer realm="voicemaild"${parameters}` } })
}

/** A token that was verified is known again for so long, or until it expires, without its signature being computed anew. */
const KNOWN_TOKENS = { cache: 1000, cacheTTL: 60_000 }

function verifierOf (settings: JwtSettings): Parameters<typeof jwt>[1] {
  const { issuer, audience } = settings
  // A claim is only held against what is allowed where the token has it: so it has to be required too.
  const rules = {
    ...KNOWN_TOKENS,
    requiredClaims: ['exp', ...issuer === undefined ? [] : ['iss'], ...audience === undefined ? [] : ['aud']],
    ...issuer !== undefined && { allowedIss: issuer },
    ...audience !== undefined && { allowedAud: audience }
  }
  return 'secret' in settings
    ? { secret: settings.secret, verify: { algorithms: ['HS256'], ...rules } }
    : { secret: { public: settings.publicKey }, verify: { algorithms: [settings.algorithm], ...rules } }
}

/** Undefined for whatever is no valid token. */
function verify (app: FastifyInstance, token: string): Record<string, unknown> | undefined {
  try {
    const claims: unknown = app.jwt.verify(token)
    return typeof claims === 'object' && claims !== null ? { ...claims } : undefined
  } catch {
    return undefined
  }
}

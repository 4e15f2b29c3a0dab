import { createPublicKey } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { homedir } from 'node:os'
import { isAbsolute, join, resolve } from 'node:path'
import { Ajv } from 'ajv'
import { Type, type Static, type TSchema } from 'typebox'
import { CertificateError, readCertificate } from './certificate.js'

const DAY_SECONDS = 86_400

/** A setting's schema, with what a person is told: a sentence, and what is expected. */
const text = (description: string, expected: string, options: object = {}) =>
  Type.Optional(Type.String({ description, expected, ...options }))
const secret = (description: string) => text(description, 'at least 32 characters', { minLength: 32, secret: true })
/** What goes through a header, or stands in a list: no blanks and no commas. */
const key = (description: string) => text(description, 'at least 32 characters of ASCII without blanks and commas', { pattern: '^[!-+\\--~]{32,}$', secret: true })
const number = (description: string, unit: string, minimum: number, maximum: number, byDefault: number) =>
  Type.Integer({ description, unit, expected: `a whole number from ${minimum} to ${maximum}`, minimum, maximum, default: byDefault })
const choice = <const T extends string[]>(description: string, values: [...T], byDefault: T[number]) =>
  Type.Enum(values, { description, expected: `one of ${values.join(', ')}`, default: byDefault })

/** Every setting there is, as it stands in the environment. */
export const Settings = Type.Object({
  HOST: Type.String({ description: 'The address to listen on.', expected: 'an IP address or a host name', minLength: 1, default: '127.0.0.1' }),
  PORT: number('The TCP port to listen on; 0 takes any free one.', '', 0, 65_535, 8080),
  LISTEN: text('A Unix socket to listen on, in place of HOST and PORT; PUBLIC_URL is needed then.', 'an absolute path of at most 107 characters of ASCII without blanks', { pattern: '^/[!-~]{0,105}[!-.0-~]$' }),
  PUBLIC_URL: text('What signed URLs begin with: the address that recorders and listeners reach, a proxy\'s where there is one. Default: the listening address.', 'an http or https URL without query and fragment', { pattern: '^https?://[^/?#\\s]+(/[^?#\\s]*)?$' }),
  TLS_CERT_FILE: text('A file with a certificate and its chain in PEM, for HTTPS in this process; plain HTTP without it.', 'a path', { minLength: 1 }),
  TLS_KEY_FILE: text('The file with its private key in PEM, without a passphrase.', 'a path', { minLength: 1 }),
  DATA_DIR: Type.String({ description: 'The folder of the data.', expected: 'a path', minLength: 1, default: 'storage' }),
  ADMIN_API_KEY: key('The admin API key, instead of the one that is made in the data folder.'),
  MAX_UPLOAD_SIZE: number('The largest voicemail. A Flexisip recorder takes no calls below 12582840.', 'bytes', 1024, 2_147_483_647, 15_000_000),
  UPLOAD_URL_TTL: number('How long an upload URL, and with it a slot, is valid.', 'seconds', 1, 30 * DAY_SECONDS, 3600),
  DOWNLOAD_URL_TTL: number('How long a download URL is valid.', 'seconds', 1, 365 * DAY_SECONDS, DAY_SECONDS),
  UPLOAD_IDLE_TIMEOUT: number('How long the sender of an upload may be silent.', 'seconds', 1, 3600, 30),
  UPLOAD_MIN_RATE: number('The least that the sender of an upload may send, measured over 30 seconds in which voicemaild waited for it; 0 for no limit.', 'bytes per second', 0, 1_000_000_000, 1000),
  STOP_TIMEOUT: number('How long requests under way may take to finish after SIGTERM or SIGINT.', 'seconds', 0, 3600, 30),
  ACCOUNT_QUOTA_BYTES: number('What an account may hold, open slots counted with their largest voicemail; 0 for no limit.', 'bytes', 0, Number.MAX_SAFE_INTEGER, 0),
  ACCOUNT_QUOTA_MESSAGES: number('How many voicemails an account may hold, open slots counted; 0 for no limit.', 'messages', 0, 1_000_000_000, 0),
  ACCOUNT_OPEN_SLOTS: number('How many slots of one account may be open at once, so that none reserves the whole disk; 0 for no limit.', 'slots', 0, 1_000_000_000, 2000),
  RETENTION_DAYS: number('Age at which voicemails are deleted; 0 keeps them.', 'days', 0, 36_500, 0),
  RETENTION_DAYS_READ: number('Time after which voicemails that were marked as read are deleted; 0 keeps them.', 'days', 0, 36_500, 0),
  AUDIT_DAYS: number('How long it is kept who deleted a voicemail.', 'days', 1, 36_500, 90),
  SIGNING_KEY: key('What signed URLs are signed with, instead of the key that is made in the data folder.'),
  PREVIOUS_SIGNING_KEYS: text('Older signing keys that still verify, while they are rotated out.', 'keys of at least 32 characters, separated by commas', { pattern: '^ *[!-+\\--~]{32,} *(, *[!-+\\--~]{32,} *)*$', secret: true }),
  JWT_SECRET: secret('The shared secret of JWTs (HS256).'),
  JWT_PUBLIC_KEY_FILE: text('A file with the public key of JWTs in PEM: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA).', 'a path', { minLength: 1 }),
  JWT_ISSUER: text('The iss that JWTs must have.', 'a text', { minLength: 1 }),
  JWT_AUDIENCE: text('The aud that JWTs must have.', 'a text', { minLength: 1 }),
  JWT_SIP_CLAIM: Type.String({ description: 'The claim with the SIP URI of the account; without it, sub is the account\'s id.', expected: 'the name of a claim', minLength: 1, default: 'sip_identity' }),
  JWT_ADMIN_CLAIM: Type.String({ description: 'The claim that makes an admin where it is true, "admin", or a list with "admin" in it.', expected: 'the name of a claim', minLength: 1, default: 'voicemail_role' }),
  AUTH_FAILURES_PER_MINUTE: number('Failed attempts of one address before it is answered with 429.', 'attempts', 1, 1_000_000, 30),
  TRUST_PROXY: Type.String({ description: 'Whose X-Forwarded-For is believed: true, false, or addresses and networks separated by commas.', expected: 'true, false, or IP addresses and networks such as 127.0.0.1 or 10.0.0.0/8', default: 'false' }),
  X_ACCEL_PREFIX: text('Leaves the bytes of downloads to nginx: the internal location that serves the folder audio of the data folder.', 'a path that begins and ends with /', { pattern: '^/([^?#\\s]*/)?$' }),
  MIN_FREE_DISK: number('Free space that is kept: below it, counting what open slots may still need, no slot is opened.', 'bytes', 0, Number.MAX_SAFE_INTEGER, 500_000_000),
  DURABILITY: choice('full: an answer waits until the disk has what it tells. relaxed: the operating system decides when, and a power cut may take the last seconds.', ['full', 'relaxed'], 'full'),
  LOG_LEVEL: choice('What is logged.', ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], 'info')
})

/** A setting that is wrong; the message is one line for people. */
export class SettingError extends Error {
  override readonly name = 'SettingError'

  constructor (setting: string, found: string, expected: string) {
    super(`${setting}: expected ${expected}, found ${found}.`)
  }
}

/** What the program goes by: settings with their defaults, in milliseconds and bytes. */
export type Config = ReturnType<typeof readConfig>

/** Reads the settings from an environment. Throws SettingError. An empty value counts as none. */
export function readConfig (env: Readonly<Record<string, string | undefined>>) {
  const settings = checkSettings(env)
  const keys = settings.PREVIOUS_SIGNING_KEYS?.split(',').map(key => key.trim()) ?? []
  return Object.freeze({
    listen: Object.freeze(settings.LISTEN === undefined ? { host: settings.HOST, port: settings.PORT } : { path: settings.LISTEN }),
    publicUrl: settings.PUBLIC_URL?.replace(/\/+$/, ''),
    tls: readTls(settings),
    dataFolder: resolve(settings.DATA_DIR),
    adminKey: settings.ADMIN_API_KEY,
    uploadUrlTtlMs: settings.UPLOAD_URL_TTL * 1000,
    downloadUrlTtlMs: settings.DOWNLOAD_URL_TTL * 1000,
    pace: Object.freeze({ idleTimeoutMs: settings.UPLOAD_IDLE_TIMEOUT * 1000, minBytesPerSecond: settings.UPLOAD_MIN_RATE }),
    stopTimeoutMs: settings.STOP_TIMEOUT * 1000,
    limits: Object.freeze({
      maxUploadBytes: settings.MAX_UPLOAD_SIZE,
      minFreeDiskBytes: settings.MIN_FREE_DISK,
      accountQuotaBytes: settings.ACCOUNT_QUOTA_BYTES,
      accountQuotaMessages: settings.ACCOUNT_QUOTA_MESSAGES,
      accountOpenSlots: settings.ACCOUNT_OPEN_SLOTS
    }),
    retentionMs: settings.RETENTION_DAYS * DAY_SECONDS * 1000,
    retentionReadMs: settings.RETENTION_DAYS_READ * DAY_SECONDS * 1000,
    auditMs: settings.AUDIT_DAYS * DAY_SECONDS * 1000,
    signingKey: settings.SIGNING_KEY,
    previousSigningKeys: Object.freeze(keys),
    jwt: readJwt(settings),
    claims: Object.freeze({ sipClaim: settings.JWT_SIP_CLAIM, adminClaim: settings.JWT_ADMIN_CLAIM }),
    authFailuresPerMinute: settings.AUTH_FAILURES_PER_MINUTE,
    /** Fastify takes a list as one text. */
    trustProxy: settings.TRUST_PROXY === 'true' || (settings.TRUST_PROXY !== 'false' && settings.TRUST_PROXY),
    accelPrefix: settings.X_ACCEL_PREFIX,
    durability: settings.DURABILITY,
    logLevel: settings.LOG_LEVEL
  })
}

function checkSettings (env: Readonly<Record<string, string | undefined>>): Static<typeof Settings> {
  const schemas: Record<string, TSchema & { expected?: string, secret?: boolean }> = Settings.properties
  const wrong = (name: string): SettingError => {
    const { expected = 'another value', secret = false } = schemas[name] ?? {}
    const value = env[name] ?? ''
    return new SettingError(name, secret ? `${value.length} characters` : JSON.stringify(value), expected)
  }
  const settings: Record<string, unknown> = {}
  for (const [name, schema] of Object.entries(schemas)) {
    const value = env[name]
    if (value === undefined || value === '') continue
    // Ajv would take a blank for 0, and 1e3 for a thousand.
    if (Type.IsInteger(schema) && !/^[0-9]+$/.test(value)) throw wrong(name)
    settings[name] = value
  }
  // The schema is a constant, which a test holds against the meta-schema: compiling that one takes longer than all the rest.
  const ajv = new Ajv({ strict: false, coerceTypes: true, useDefaults: true, meta: false, validateSchema: false })
  const validate = ajv.compile<Static<typeof Settings>>(Settings)
  if (!validate(settings)) throw wrong(validate.errors?.[0]?.instancePath.split('/')[1] ?? '')
  if (settings.PUBLIC_URL !== undefined && !URL.canParse(settings.PUBLIC_URL)) throw wrong('PUBLIC_URL')
  if (!isTrustProxy(settings.TRUST_PROXY)) throw wrong('TRUST_PROXY')
  if (settings.LISTEN !== undefined && !['true', 'false'].includes(settings.TRUST_PROXY)) {
    throw new SettingError('TRUST_PROXY', JSON.stringify(settings.TRUST_PROXY), 'true or false, because who comes through the Unix socket of LISTEN has no address')
  }
  return settings
}

/** What proxy-addr, below Fastify, would refuse only when the app is built; names such as `loopback` are left out. */
function isTrustProxy (value: string): boolean {
  return value === 'true' || value === 'false' || value.split(',').every(part => {
    const [, address = '', bits] = /^([0-9a-fA-F.:]+)(?:\/([0-9]{1,3}))?$/.exec(part.trim()) ?? []
    const version = isIP(address)
    return version !== 0 && (bits === undefined || (Number(bits) >= 1 && Number(bits) <= (version === 4 ? 32 : 128)))
  })
}

function readTls ({ TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile }: Static<typeof Settings>) {
  const expected = { cert: 'a file with a certificate in PEM, and its chain', key: 'a file with the private key of the certificate in PEM, without a passphrase' }
  const wrong = (file: keyof typeof expected, found: string): SettingError => new SettingError(`TLS_${file.toUpperCase()}_FILE`, found, expected[file])
  if (certFile === undefined && keyFile === undefined) return undefined
  if (certFile === undefined) throw wrong('cert', 'none beside TLS_KEY_FILE')
  if (keyFile === undefined) throw wrong('key', 'none beside TLS_CERT_FILE')
  try {
    return Object.freeze({ certFile, keyFile, certificate: readCertificate({ certFile, keyFile }) })
  } catch (error) {
    throw error instanceof CertificateError ? wrong(error.file, error.found) : error
  }
}

function readJwt ({ JWT_SECRET: secret, JWT_PUBLIC_KEY_FILE: file, JWT_ISSUER: issuer, JWT_AUDIENCE: audience }: Static<typeof Settings>) {
  if (secret !== undefined && file !== undefined) {
    throw new SettingError('JWT_PUBLIC_KEY_FILE', 'JWT_SECRET beside it', 'one of the two')
  }
  if (secret !== undefined) return Object.freeze({ secret, issuer, audience })
  if (file !== undefined) return Object.freeze({ ...readPublicKey(file), issuer, audience })
  return undefined
}

function readPublicKey (file: string) {
  const expected = 'a file with a public key in PEM: RSA of at least 2048 bits, P-256 or Ed25519'
  const wrong = (found: string): SettingError => new SettingError('JWT_PUBLIC_KEY_FILE', found, expected)
  let pem
  try {
    pem = readFileSync(file, 'utf8')
  } catch {
    throw wrong(`${JSON.stringify(file)}, which cannot be read`)
  }
  if (pem.includes('PRIVATE KEY')) throw wrong('a private key')
  let key
  try {
    key = createPublicKey(pem)
  } catch {
    throw wrong(`${JSON.stringify(file)}, which holds none`)
  }
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  // One form, whatever the file has (PKCS #1, a certificate).
  const publicKey = key.export({ type: 'spki', format: 'pem' }).toString()
  if (type === 'rsa' && (details?.modulusLength ?? 0) >= 2048) return { publicKey, algorithm: 'RS256' as const }
  if (type === 'ec' && details?.namedCurve === 'prime256v1') return { publicKey, algorithm: 'ES256' as const }
  if (type === 'ed25519') return { publicKey, algorithm: 'EdDSA' as const }
  throw wrong(`a key of type ${type} ${details?.modulusLength ?? details?.namedCurve ?? ''}`.trim())
}

/**
 * Where the system wants what can be made anew at any time: systemd's folder for the service, else the user's, by the XDG Base Directory
 * Specification (which wants absolute paths only), else, where it is, the one that Debian's package makes for its user, who has no home. The
 * others need not be there.
 */
export function readCacheFolders ({ CACHE_DIRECTORY: service = '', XDG_CACHE_HOME: ofUser = '' } = process.env, ofPackage = '/var/cache/voicemaild'): string[] {
  const [first = ''] = service.split(':')
  return [
    ...isAbsolute(first) ? [join(first, 'files')] : [],
    join(isAbsolute(ofUser) ? ofUser : join(homedir(), '.cache'), 'voicemaild'),
    ...existsSync(ofPackage) ? [join(ofPackage, 'files')] : []
  ]
}

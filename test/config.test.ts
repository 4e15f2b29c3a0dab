import { createPrivateKey, generateKeyPairSync, sign, verify } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { Ajv } from 'ajv'
import fastify from 'fastify'
import t from 'tap'
import { readConfig, SettingError, Settings } from '../src/config.js'
import { makeCertificate } from './certificates.js'

const TLS_FILES = await makeCertificate(t.testdir({}))
const SECRET = 'correct-horse-battery-staple-0123'

function messageOf (env: Record<string, string>): string {
  try {
    readConfig(env)
  } catch (error) {
    if (error instanceof SettingError) return error.message
    throw error
  }
  return 'accepted'
}

t.test('the schema of the settings is one, which the start takes for granted', async t => {
  const ajv = new Ajv({ strict: false })
  t.equal(ajv.validateSchema(Settings), true, ajv.errorsText())
})

t.test('without any setting the defaults of the contract hold', async t => {
  t.strictSame({ ...readConfig({}) }, {
    listen: { host: '127.0.0.1', port: 8080 },
    publicUrl: undefined,
    tls: undefined,
    dataFolder: resolve('storage'),
    adminKey: undefined,
    uploadUrlTtlMs: 3_600_000,
    downloadUrlTtlMs: 86_400_000,
    pace: { idleTimeoutMs: 30_000, minBytesPerSecond: 1000 },
    stopTimeoutMs: 30_000,
    limits: { maxUploadBytes: 15_000_000, minFreeDiskBytes: 500_000_000, accountQuotaBytes: 0, accountQuotaMessages: 0, accountOpenSlots: 2000 },
    retentionMs: 0,
    retentionReadMs: 0,
    auditMs: 90 * 86_400_000,
    signingKey: undefined,
    previousSigningKeys: [],
    jwt: undefined,
    claims: { sipClaim: 'sip_identity', adminClaim: 'voicemail_role' },
    authFailuresPerMinute: 30,
    trustProxy: false,
    accelPrefix: undefined,
    durability: 'full',
    logLevel: 'info'
  })
  t.ok(readConfig({}).limits.maxUploadBytes >= 12_582_840, 'a Flexisip recorder takes calls with the default size')
})

t.test('every setting has a sentence that tells what it is, and one that tells what is expected', async t => {
  for (const [name, schema] of Object.entries(Settings.properties)) {
    t.match(schema, { description: /^\S.*\.$/, expected: /\S/ }, name)
  }
})

t.test('every setting is read, times from seconds', async t => {
  const config = readConfig({
    HOST: '::1',
    PORT: '0',
    PUBLIC_URL: 'https://voicemail.example.org',
    TLS_CERT_FILE: TLS_FILES.certFile,
    TLS_KEY_FILE: TLS_FILES.keyFile,
    DATA_DIR: 'elsewhere',
    ADMIN_API_KEY: `admin-${SECRET}`,
    MAX_UPLOAD_SIZE: '2147483647',
    UPLOAD_URL_TTL: '60',
    DOWNLOAD_URL_TTL: '61',
    UPLOAD_IDLE_TIMEOUT: '62',
    UPLOAD_MIN_RATE: '63',
    STOP_TIMEOUT: '64',
    ACCOUNT_QUOTA_BYTES: '65',
    ACCOUNT_QUOTA_MESSAGES: '66',
    ACCOUNT_OPEN_SLOTS: '67',
    RETENTION_DAYS: '68',
    RETENTION_DAYS_READ: '69',
    AUDIT_DAYS: '70',
    SIGNING_KEY: `sign-${SECRET}`,
    PREVIOUS_SIGNING_KEYS: `one-${SECRET} , two-${SECRET}`,
    JWT_SECRET: `jwt ${SECRET}`,
    JWT_ISSUER: 'https://sso.example.org',
    JWT_AUDIENCE: 'voicemail',
    JWT_SIP_CLAIM: 'sip',
    JWT_ADMIN_CLAIM: 'role',
    AUTH_FAILURES_PER_MINUTE: '7',
    TRUST_PROXY: 'true',
    X_ACCEL_PREFIX: '/audio/',
    MIN_FREE_DISK: '0',
    DURABILITY: 'relaxed',
    LOG_LEVEL: 'silent'
  })
  t.strictSame({ ...config }, {
    listen: { host: '::1', port: 0 },
    publicUrl: 'https://voicemail.example.org',
    tls: { ...TLS_FILES, certificate: { cert: readFileSync(TLS_FILES.certFile, 'utf8'), key: readFileSync(TLS_FILES.keyFile, 'utf8') } },
    dataFolder: resolve('elsewhere'),
    adminKey: `admin-${SECRET}`,
    uploadUrlTtlMs: 60_000,
    downloadUrlTtlMs: 61_000,
    pace: { idleTimeoutMs: 62_000, minBytesPerSecond: 63 },
    stopTimeoutMs: 64_000,
    limits: { maxUploadBytes: 2_147_483_647, minFreeDiskBytes: 0, accountQuotaBytes: 65, accountQuotaMessages: 66, accountOpenSlots: 67 },
    retentionMs: 68 * 86_400_000,
    retentionReadMs: 69 * 86_400_000,
    auditMs: 70 * 86_400_000,
    signingKey: `sign-${SECRET}`,
    previousSigningKeys: [`one-${SECRET}`, `two-${SECRET}`],
    jwt: { secret: `jwt ${SECRET}`, issuer: 'https://sso.example.org', audience: 'voicemail' },
    claims: { sipClaim: 'sip', adminClaim: 'role' },
    authFailuresPerMinute: 7,
    trustProxy: true,
    accelPrefix: '/audio/',
    durability: 'relaxed',
    logLevel: 'silent'
  })
})

t.test('an empty value counts as none, and what is no setting is left alone', async t => {
  const empty = Object.fromEntries(Object.keys(Settings.properties).map(name => [name, '']))
  t.strictSame(readConfig({ ...empty, PATH: '/bin', port: 'x', HOME: undefined }), readConfig({}))
})

t.test('a configuration cannot be changed', async t => {
  const config = readConfig({ JWT_SECRET: SECRET, PREVIOUS_SIGNING_KEYS: SECRET, TRUST_PROXY: '10.0.0.1' })
  for (const [name, part] of Object.entries({ config, claims: config.claims, limits: config.limits, pace: config.pace, jwt: config.jwt, previousSigningKeys: config.previousSigningKeys })) {
    t.ok(Object.isFrozen(part), name)
  }
})

t.test('a wrong value is told in one line that names the setting, what was found and what is expected', async t => {
  const wrong: Array<[name: string, value: string, expected: RegExp]> = [
    ...['-1', '65536', '80a', '8080.5', ' ', ' 8080', '1e3', '0x50', 'true', 'null', '99999999999999999999'].map((value): [string, string, RegExp] =>
      ['PORT', value, /whole number from 0 to 65535/]),
    ['MAX_UPLOAD_SIZE', '1023', /whole number from 1024 to 2147483647/],
    ['MAX_UPLOAD_SIZE', '2147483648', /whole number from 1024 to 2147483647/],
    ['MAX_UPLOAD_SIZE', '15MB', /whole number/],
    ['UPLOAD_URL_TTL', '0', /whole number from 1 to 2592000/],
    ['UPLOAD_URL_TTL', '1h', /whole number/],
    ['DOWNLOAD_URL_TTL', '31536001', /whole number from 1 to 31536000/],
    ['UPLOAD_IDLE_TIMEOUT', '0', /whole number from 1 to 3600/],
    ['AUTH_FAILURES_PER_MINUTE', '0', /whole number from 1/],
    ['MIN_FREE_DISK', '-5', /whole number from 0/],
    ['DURABILITY', 'none', /one of full, relaxed/],
    ['DURABILITY', 'FULL', /one of full, relaxed/],
    ['LOG_LEVEL', 'verbose', /one of fatal, error, warn, info, debug, trace, silent/],
    ...['voicemail.example.org', 'ftp://voicemail.example.org', 'https://', 'https://a/?b=c', 'https://a/#b', 'https://a b/', 'https://a:99999', 'https://[::1', 'x\nhttps://a'].map((value): [string, string, RegExp] =>
      ['PUBLIC_URL', value, /http or https URL without query and fragment/]),
    ...['audio/', '/audio', 'http://a/audio/', '/a?b/', '/a b/'].map((value): [string, string, RegExp] => ['X_ACCEL_PREFIX', value, /begins and ends with \//])
  ]
  for (const [name, value, expected] of wrong) {
    const message = messageOf({ [name]: value })
    t.ok(message.startsWith(`${name}: expected `), message)
    t.match(message, expected)
    t.ok(message.endsWith(`, found ${JSON.stringify(value)}.`), 'what was found')
    t.notMatch(message, /\n/, 'one line')
  }
})

t.test('a secret under 32 characters is refused, and never told', async t => {
  const short = 'hunter2-hunter2-hunter2-hunter2'
  t.equal(short.length, 31)
  for (const name of ['ADMIN_API_KEY', 'SIGNING_KEY', 'JWT_SECRET', 'PREVIOUS_SIGNING_KEYS']) {
    t.match(messageOf({ [name]: short }), new RegExp(`^${name}: expected .*at least 32 characters.*, found 31 characters\\.$`))
    t.notMatch(messageOf({ [name]: short }), /hunter2/)
    t.equal(messageOf({ [name]: `${short}3` }), 'accepted', `${name} of 32`)
  }
  for (const list of [`${SECRET},${short}`, `${SECRET},`, `,${SECRET}`, `${SECRET},,${SECRET}`, `${SECRET};${short} ${SECRET}`]) {
    const message = messageOf({ PREVIOUS_SIGNING_KEYS: list })
    t.match(message, /^PREVIOUS_SIGNING_KEYS: expected keys of at least 32 characters, separated by commas, found \d+ characters\.$/)
  }
})

t.test('a key that no header could carry, or that could never stand in the list of previous ones, is refused', async t => {
  for (const name of ['ADMIN_API_KEY', 'SIGNING_KEY']) {
    for (const key of [`${SECRET},x`, ` ${SECRET}`, `${SECRET} `, `${SECRET}\n`, `${SECRET}é`, ' '.repeat(40)]) {
      t.match(messageOf({ [name]: key }), new RegExp(`^${name}: expected .*, found \\d+ characters\\.$`), JSON.stringify(key))
    }
  }
})

t.test('PUBLIC_URL loses the slash at its end, since a path follows', async t => {
  for (const [value, expected] of [
    ['https://voicemail.example.org/', 'https://voicemail.example.org'],
    ['http://192.0.2.1:8080//', 'http://192.0.2.1:8080'],
    ['http://[2001:db8::1]:8080', 'http://[2001:db8::1]:8080'],
    ['https://example.org/voicemail/', 'https://example.org/voicemail']
  ] as const) {
    t.equal(readConfig({ PUBLIC_URL: value }).publicUrl, expected)
  }
})

t.test('TRUST_PROXY is true, false, or addresses and networks', async t => {
  const remote = async (trustProxy: boolean | string): Promise<string> => {
    const app = fastify({ trustProxy })
    app.get('/', ({ ip }) => ip)
    const { body } = await app.inject({ url: '/', remoteAddress: '10.1.2.3', headers: { 'x-forwarded-for': '192.0.2.9' } })
    await app.close()
    return body
  }
  for (const [value, ip] of [
    ['true', '192.0.2.9'], ['false', '10.1.2.3'], ['10.1.2.3', '192.0.2.9'], ['10.1.2.4', '10.1.2.3'], ['10.0.0.0/8', '192.0.2.9'],
    ['127.0.0.1 , ::1,10.0.0.0/8', '192.0.2.9'], ['2001:db8::/32', '10.1.2.3'], ['::ffff:10.1.2.3', '192.0.2.9'], ['::1/128', '10.1.2.3']
  ] as const) {
    t.equal(await remote(readConfig({ TRUST_PROXY: value }).trustProxy), ip, value)
  }
  for (const value of [
    '1.2.3.4.5', '1.2.3', '256.0.0.1', '10.0.0.0/99', '10.0.0.0/33', '10.0.0.0/0', '10.0.0.0/', '10.0.0.0/8/8', '::1/129', ':::1', 'fe80::1%eth0',
    '127.0.0.1,', ',', '127.0.0.1,,::1', '127.0.0.1;::1', 'yes', 'TRUE', 'loopback', '1', 'a.b', '...', '/', 'true,127.0.0.1', '10.0.0.0/255.0.0.0'
  ]) {
    t.match(messageOf({ TRUST_PROXY: value }), /^TRUST_PROXY: expected true, false, or IP addresses and networks such as .*, found ".*"\.$/, value)
  }
})

t.test('a public key in PEM pins its own algorithm', async t => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const ec = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const ed = generateKeyPairSync('ed25519')
  const spki = { type: 'spki', format: 'pem' } as const
  const folder = t.testdir({
    'rsa.pem': rsa.publicKey.export(spki),
    'rsa-pkcs1.pem': rsa.publicKey.export({ type: 'pkcs1', format: 'pem' }),
    'ec.pem': ec.publicKey.export(spki),
    'ed.pem': ed.publicKey.export(spki),
    'small.pem': generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export(spki),
    'p384.pem': generateKeyPairSync('ec', { namedCurve: 'secp384r1' }).publicKey.export(spki),
    'x25519.pem': generateKeyPairSync('x25519').publicKey.export(spki),
    'private.pem': rsa.privateKey.export({ type: 'pkcs8', format: 'pem' }),
    'encrypted.pem': rsa.privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' }),
    'private-ec.pem': ec.privateKey.export({ type: 'sec1', format: 'pem' }),
    'text.pem': 'This is no key, and it is a secret-looking line.\n',
    'empty.pem': ''
  })

  for (const [name, algorithm, privateKey] of [
    ['rsa.pem', 'RS256', rsa.privateKey], ['rsa-pkcs1.pem', 'RS256', rsa.privateKey], ['ec.pem', 'ES256', ec.privateKey], ['ed.pem', 'EdDSA', ed.privateKey]
  ] as const) {
    const { jwt } = readConfig({ JWT_PUBLIC_KEY_FILE: join(folder, name), JWT_ISSUER: 'me' })
    t.match(jwt, { algorithm, issuer: 'me', audience: undefined }, name)
    const publicKey = jwt !== undefined && 'publicKey' in jwt ? jwt.publicKey : ''
    const hash = algorithm === 'EdDSA' ? null : 'sha256'
    t.ok(verify(hash, Buffer.from('x'), publicKey, sign(hash, Buffer.from('x'), privateKey)), `${name} is the key that was given`)
  }

  for (const [name, found] of [
    ['small.pem', /rsa 1024/], ['p384.pem', /ec secp384r1/], ['x25519.pem', /x25519/], ['private.pem', /a private key/], ['encrypted.pem', /a private key/],
    ['private-ec.pem', /a private key/], ['text.pem', /holds none/], ['empty.pem', /holds none/], ['missing.pem', /cannot be read/], ['.', /cannot be read/]
  ] as const) {
    const message = messageOf({ JWT_PUBLIC_KEY_FILE: join(folder, name) })
    t.match(message, /^JWT_PUBLIC_KEY_FILE: expected a file with a public key in PEM: RSA of at least 2048 bits, P-256 or Ed25519, found .*\.$/, name)
    t.match(message, found)
    t.notMatch(message, /\n|secret-looking/)
  }
  t.match(messageOf({ JWT_PUBLIC_KEY_FILE: join(folder, 'rsa.pem'), JWT_SECRET: SECRET }), /^JWT_PUBLIC_KEY_FILE: expected one of the two, found JWT_SECRET beside it\.$/)
})

t.test('LISTEN takes the place of HOST and PORT', async t => {
  t.strictSame(readConfig({ LISTEN: '/run/voicemaild/socket', PORT: '1' }).listen, { path: '/run/voicemaild/socket' })
})

t.test('a certificate and its key are two files in PEM that fit each other', async t => {
  const folder = t.testdir({ 'text.pem': 'This is no key, and it is a secret-looking line.\n', 'empty.pem': '' })
  const [one, other] = [await makeCertificate(folder, 'one'), await makeCertificate(folder, 'other')]
  writeFileSync(join(folder, 'encrypted.pem'), createPrivateKey(readFileSync(one.keyFile)).export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' }))
  writeFileSync(join(folder, 'torn.pem'), readFileSync(one.certFile, 'utf8') + readFileSync(other.certFile, 'utf8').slice(0, 200))
  t.match(readConfig({ TLS_CERT_FILE: one.certFile, TLS_KEY_FILE: one.keyFile }).tls, { certFile: one.certFile, keyFile: one.keyFile })
  const file = (name: string): string => join(folder, name)
  for (const [cert, key, setting, found] of [
    [one.certFile, '', 'TLS_KEY_FILE', /none beside TLS_CERT_FILE/],
    ['', one.keyFile, 'TLS_CERT_FILE', /none beside TLS_KEY_FILE/],
    [file('missing.pem'), one.keyFile, 'TLS_CERT_FILE', /missing\.pem", which cannot be read/],
    [folder, one.keyFile, 'TLS_CERT_FILE', /cannot be read/],
    [one.certFile, file('missing.pem'), 'TLS_KEY_FILE', /missing\.pem", which cannot be read/],
    [file('text.pem'), one.keyFile, 'TLS_CERT_FILE', /holds none/],
    [file('empty.pem'), one.keyFile, 'TLS_CERT_FILE', /holds none/],
    [one.keyFile, one.certFile, 'TLS_CERT_FILE', /holds none/],
    [file('torn.pem'), one.keyFile, 'TLS_CERT_FILE', /OpenSSL does not take/],
    [one.certFile, file('text.pem'), 'TLS_KEY_FILE', /holds none, or one with a passphrase/],
    [one.certFile, file('encrypted.pem'), 'TLS_KEY_FILE', /holds none, or one with a passphrase/],
    [one.certFile, other.keyFile, 'TLS_KEY_FILE', /is that of another certificate/]
  ] as const) {
    const message = messageOf({ TLS_CERT_FILE: cert, TLS_KEY_FILE: key })
    t.match(message, new RegExp(`^${setting}: expected a file with .* in PEM, .*, found .*\\.$`))
    t.match(message, found)
    t.notMatch(message, /\n|secret-looking/)
  }
})

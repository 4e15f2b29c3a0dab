import { createHmac, sign, type KeyObject } from 'node:crypto'

/** What a token is signed with: a shared secret, or a private key. */
export type SigningKey = string | KeyObject

/** A JWT (RFC 7519) as its issuer would make it, signed by hand; valid for an hour unless its claims say otherwise. */
export function signJwt (claims: Record<string, unknown>, key: SigningKey, header: { alg: string, [name: string]: unknown } = { alg: 'HS256' }): string {
  const exp = Math.floor(Date.now() / 1000) + 3600
  const text = [{ typ: 'JWT', ...header }, { exp, ...claims }].map(part => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
  return `${text}.${signatureOf(text, key, header.alg).toString('base64url')}`
}

function signatureOf (text: string, key: SigningKey, algorithm: string): Buffer {
  if (algorithm === 'none') return Buffer.alloc(0)
  const hash = `sha${algorithm.slice(-3)}`
  if (typeof key === 'string') return createHmac(hash, key).update(text).digest()
  // Ed25519 hashes by itself; of ECDSA, JOSE wants the two numbers side by side (RFC 7518 section 3.4).
  return algorithm === 'EdDSA' ? sign(null, Buffer.from(text), key) : sign(hash, Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' })
}

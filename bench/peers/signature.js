import { createHmac, timingSafeEqual } from 'node:crypto'

/** The HMAC-SHA-256 that a signed URL of the peers carries. */
export function signatureOf (key, method, name, expires) {
  return createHmac('sha256', key).update(`${method}\n${name}\n${expires}`).digest('base64url')
}

export function isSigned (key, method, name, expires, signature) {
  const given = Buffer.from(signature)
  const right = Buffer.from(signatureOf(key, method, name, expires))
  return given.length === right.length && timingSafeEqual(given, right) && Number(expires) * 1000 > Date.now()
}

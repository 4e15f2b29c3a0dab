import { createHash, timingSafeEqual } from 'node:crypto'

/** SHA-256 of a text, in hexadecimal. */
export function sha256Hex (text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

/** Compares a secret with the hash of the right one in a time that tells nothing about either. */
export function matchesSha256 (secret: string, rightSha256: string): boolean {
  return timingSafeEqual(Buffer.from(sha256Hex(secret), 'hex'), Buffer.from(rightSha256, 'hex'))
}

import { createHmac, timingSafeEqual } from 'node:crypto'
import { AppError } from '../errors.js'
import { isoSeconds, type Clock } from './clock.js'

export type Direction = 'upload' | 'download'

/** What a signed URL opens: one voicemail, one direction, until one moment (a whole second). */
export interface Capability { direction: Direction, voicemailId: string, expiresAtMs: number }

export interface SignedUrls {
  /** The path of a capability URL, such as `/uploads/{uuid};expires={Unix seconds};signature={base64url}`. */
  sign: (capability: Capability) => string
  /**
   * Reads the last segment of such a path. Throws `invalid_signature` for whatever was not signed with one of the keys for
   * this direction, and then, only for what was, `url_expired`.
   */
  verify: (direction: Direction, token: string) => Capability
}

export interface SignedUrlOptions {
  /** Signs and verifies. */
  key: string
  /** Older keys that still verify while they are rotated out. */
  previousKeys: readonly string[]
  clock: Clock
}

const FOLDERS = { upload: '/uploads/', download: '/downloads/' } as const satisfies Record<Direction, string>
const TOKEN = /^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12});expires=([0-9]{1,12});signature=([A-Za-z0-9_-]{43})$/

/**
 * Capability URLs. Everything stands in the path, in unreserved characters and `; =`, because the recorder sends back the path
 * alone, with unneeded escapes decoded.
 */
export function createSignedUrls ({ key, previousKeys, clock }: SignedUrlOptions): SignedUrls {
  const hmac = (secret: string, direction: Direction, voicemailId: string, expiresAtSeconds: string): string =>
    createHmac('sha256', secret).update(`voicemaild 1\n${direction}\n${voicemailId}\n${expiresAtSeconds}`).digest('base64url')

  return {
    sign: ({ direction, voicemailId, expiresAtMs }) => {
      const expires = String(Math.floor(expiresAtMs / 1000))
      const signature = hmac(key, direction, voicemailId, expires)
      return `${FOLDERS[direction]}${voicemailId};expires=${expires};signature=${signature}`
    },
    verify: (direction, token) => {
      const [, voicemailId = '', expires = '', signature = ''] = TOKEN.exec(token) ?? []
      // As text: the last of the 43 characters has two bits to spare, and four of them would mean the same bytes.
      const given = Buffer.from(signature, 'latin1')
      // Every key is tried, so that the time taken does not tell which one fits.
      const fits = [key, ...previousKeys].map(secret => {
        const right = Buffer.from(hmac(secret, direction, voicemailId, expires), 'latin1')
        return given.length === right.length && timingSafeEqual(given, right)
      })
      if (!fits.includes(true)) throw new AppError('invalid_signature', `This is no URL that was signed here for this ${direction}.`)
      const expiresAtMs = Number(expires) * 1000
      if (clock() >= expiresAtMs) {
        throw new AppError('url_expired', 'This URL has expired.', { expected: `before ${isoSeconds(expiresAtMs)}`, found: isoSeconds(clock()) })
      }
      return { direction, voicemailId, expiresAtMs }
    }
  }
}

import { AppError } from '../errors.js'
import type { VoicemailRow } from '../stores/tables.js'

/** A voicemail whose audio is there. */
export type StoredVoicemail = VoicemailRow & { [K in 'uploadedAtMs' | 'fileBytes' | 'durationMs']: number } & { [K in 'fileName' | 'sha256']: string }

export function isStored (voicemail: VoicemailRow): voicemail is StoredVoicemail {
  return voicemail.uploadedAtMs !== null
}

export function unknownVoicemail (): never {
  throw new AppError('not_found', 'There is no such voicemail.')
}

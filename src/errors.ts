/**
 * The closed set of things that can go wrong, in the words that clients see.
 * Statuses belong to HTTP: `plugins/problems.ts` has the one table from code to status.
 */
export const ERROR_CODES = [
  'malformed_request', 'body_incomplete', 'malformed_multipart',
  'unauthorized', 'forbidden', 'invalid_signature',
  'not_found', 'audio_lost', 'method_not_allowed', 'sender_too_slow',
  'upload_in_progress', 'already_uploaded', 'voicemail_pending', 'account_exists',
  'url_expired', 'precondition_failed', 'body_too_large', 'upload_too_large', 'unsupported_media_type', 'unsupported_audio',
  'range_not_satisfiable', 'validation_failed', 'file_part_missing', 'too_many_failures', 'headers_too_large',
  'internal_error', 'unavailable', 'shutting_down', 'insufficient_storage', 'quota_exceeded'
] as const

export type ErrorCode = typeof ERROR_CODES[number]

/** What may stand beside an error: where a limit or a value did not fit, both sides of it. */
export interface ErrorFacts {
  expected?: string | number
  found?: string | number
  /** For `validation_failed`: from field to a list of sentences. */
  errors?: Record<string, string[]>
  /** Response headers that belong to the error (`Allow`, `Retry-After`, `Content-Range`), by lower-case name. */
  headers?: Record<string, string>
  /** What made it happen; goes to the log only. */
  cause?: unknown
}

/** An error that its caller may be told of: `code` is stable, `message` is a sentence for people without any secret in it. */
export class AppError extends Error {
  override readonly name = 'AppError'

  constructor (readonly code: ErrorCode, message: string, readonly facts: ErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause })
  }
}

import { STATUS_CODES } from 'node:http'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest, FastifySchemaValidationError } from 'fastify'
import { AppError, type ErrorCode, type ErrorFacts } from '../errors.js'
import { logRequest } from './request-log.js'
import { SECURITY_HEADERS } from './security-headers.js'

/** The only table from code to status. */
export const STATUS_OF = {
  malformed_request: 400,
  malformed_multipart: 400,
  body_incomplete: 400,
  unauthorized: 401,
  forbidden: 403,
  invalid_signature: 403,
  not_found: 404,
  audio_lost: 404,
  method_not_allowed: 405,
  sender_too_slow: 408,
  account_exists: 409,
  already_uploaded: 409,
  upload_in_progress: 409,
  voicemail_pending: 409,
  url_expired: 410,
  precondition_failed: 412,
  body_too_large: 413,
  upload_too_large: 413,
  unsupported_audio: 415,
  unsupported_media_type: 415,
  range_not_satisfiable: 416,
  file_part_missing: 422,
  validation_failed: 422,
  too_many_failures: 429,
  headers_too_large: 431,
  internal_error: 500,
  shutting_down: 503,
  unavailable: 503,
  insufficient_storage: 507,
  quota_exceeded: 507
} as const satisfies Record<ErrorCode, number>

/** What Fastify itself refuses, in our words. */
const FASTIFY_CODES: Readonly<Record<string, [ErrorCode, string]>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: ['unsupported_media_type', 'The body must be application/json.'],
  FST_ERR_CTP_BODY_TOO_LARGE: ['body_too_large', 'The body is too large.'],
  FST_ERR_CTP_INVALID_JSON_BODY: ['malformed_request', 'The body is no valid JSON.'],
  FST_ERR_CTP_EMPTY_JSON_BODY: ['malformed_request', 'The body is empty, where JSON was expected.'],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: ['body_incomplete', 'The body has not the length that Content-Length declares.'],
  FST_ERR_BAD_URL: ['malformed_request', 'The path is malformed.'],
  FST_ERR_MAX_PARAM_LENGTH: ['not_found', 'There is nothing here.']
}

/** RFC 9457's object, with the headers that go with it. */
export function problemOf (error: AppError, requestId: string): { status: number, headers: Record<string, string>, problem: Record<string, unknown> } {
  const status = STATUS_OF[error.code]
  const { expected, found, errors, headers = {} } = error.facts
  return {
    status,
    headers: { ...SECURITY_HEADERS, ...headers, 'content-type': 'application/problem+json' },
    problem: {
      type: 'about:blank',
      title: STATUS_CODES[status],
      status,
      detail: error.message,
      code: error.code,
      message: error.message,
      request_id: requestId,
      expected,
      found,
      errors
    }
  }
}

/** Every error of every route ends here: logged once, answered as a problem. */
export function answerProblems (app: FastifyInstance): void {
  app.setErrorHandler((error: unknown, request, reply) => sendProblem(error, request, reply))
  app.setNotFoundHandler(() => { throw new AppError('not_found', 'There is nothing here.') })
}

/** Answers what no route was looked up for (`frameworkErrors`): no hook runs for it, not even the one that logs. */
export function answerUnrouted (thrown: unknown, request: FastifyRequest, reply: FastifyReply): void {
  reply.raw.once('close', () => { logRequest(request, reply) })
  sendProblem(thrown, request, reply)
}

export function sendProblem (thrown: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const error = asAppError(thrown, request)
  const { status, headers, problem } = problemOf(error, request.id)
  // A lost file is for the operator to know, though the client gets a 404.
  if (status >= 500 || error.code === 'audio_lost') request.log.error({ err: error.cause ?? thrown, code: error.code }, error.message)
  request.outcome = error.code
  return reply.code(status).headers(headers).serializer(JSON.stringify).send(problem)
}

function asAppError (thrown: unknown, request: FastifyRequest): AppError {
  if (thrown instanceof AppError) return thrown
  const { code = '', statusCode = 500, validation } = thrown instanceof Error ? thrown as Partial<FastifyError> : {}
  if (validation !== undefined) return validationFailed(validation)
  const known = FASTIFY_CODES[code]
  if (known !== undefined) return new AppError(...known, bothSides(code, request))
  if (statusCode >= 400 && statusCode < 500) return new AppError('malformed_request', 'The request is malformed.')
  return new AppError('internal_error', 'Something went wrong here. The log has it under this request_id.', { cause: thrown })
}

/** Where a limit or a value did not fit. */
function bothSides (code: string, { headers, routeOptions }: FastifyRequest): ErrorFacts {
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') return { expected: 'application/json', found: (headers['content-type'] ?? '').slice(0, 100) }
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    const { bodyLimit: expected } = routeOptions
    return { expected, found: headers['content-length'] === undefined ? `more than ${expected}` : Number(headers['content-length']) }
  }
  return {}
}

function validationFailed (found: FastifySchemaValidationError[]): AppError {
  const errors: Record<string, string[]> = {}
  for (const { instancePath, keyword, params, message = 'is wrong' } of found) {
    const missing = keyword === 'required' ? [String(params['missingProperty'])] : []
    const field = [...instancePath.split('/').slice(1), ...missing].join('.') || 'body'
    const allowed = Array.isArray(params['allowedValues']) ? `: ${params['allowedValues'].join(', ')}` : ''
    const sentence = keyword === 'required' ? 'is required' : message + allowed
    errors[field] = [...errors[field] ?? [], sentence]
  }
  const detail = Object.entries(errors).map(([field, sentences]) => `${field} ${sentences.join(', and ')}`).join('; ')
  return new AppError('validation_failed', `${detail}.`, { errors })
}

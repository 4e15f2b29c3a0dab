import type { IncomingHttpHeaders } from 'node:http'
import { Readable } from 'node:stream'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import contentDisposition from 'content-disposition'
import { LRUCache } from 'lru-cache'
import { Type } from 'typebox'
import type { AccessRecord } from '../domain/access-record.js'
import { parseByteRange, type ByteRange } from '../domain/byte-range.js'
import { downloadName } from '../domain/download-name.js'
import { servedType } from '../domain/media-type.js'
import { MAX_AROUND_BYTES, readFilePart } from '../domain/multipart-file.js'
import { evaluatePreconditions, rangeStillApplies } from '../domain/preconditions.js'
import type { PaceLimits } from '../domain/sender-pace.js'
import type { SignedUrls } from '../domain/signed-url.js'
import type { StoredVoicemail } from '../domain/stored-voicemail.js'
import type { Uploads } from '../domain/uploads.js'
import type { Voicemails } from '../domain/voicemails.js'
import { AppError } from '../errors.js'
import { streamOf } from '../plugins/http2-stream.js'
import type { Metrics } from '../plugins/metrics.js'
import { Voicemail } from '../schemas/voicemail.js'
import type { Json } from './json.js'
import { readBody } from './request-body.js'

export interface AudioDependencies {
  signedUrls: SignedUrls
  uploads: Uploads
  voicemails: Voicemails
  json: Json
  metrics: Metrics
  pace: PaceLimits
  access: Pick<AccessRecord, 'noteAccess'>
  /** Where nginx finds the folder of audio (`/protected-audio/`); undefined where this process sends the bytes itself. */
  accelPrefix: string | undefined
}

declare module 'fastify' {
  interface FastifyRequest {
    /** The Content-Type of a request to a capability URL, as it came. */
    declaredType: string | undefined
  }
}

/** Of voicemails whose headers are kept, about 1 KB each. */
const REMEMBERED_HEADERS = 1000

const Token = Type.Object({ token: Type.String() })

/** Capability URLs: whoever holds one may use it, and no other credentials are looked at. */
export function audioRoutes (deps: AudioDependencies): FastifyPluginAsyncTypebox {
  const { signedUrls, uploads, voicemails, json, metrics, access } = deps
  return async app => {
    // Whatever the type of a body is, it is read as a stream, and by the handler.
    app.removeAllContentTypeParsers()
    app.addContentTypeParser('*', (_request, _payload, done) => { done(null) })
    // Fastify refuses a type that it cannot read before any handler runs: it is kept out of its sight, for the slot to judge.
    app.decorateRequest('declaredType', undefined)
    app.addHook('onRequest', (request, _reply, done) => {
      request.declaredType = request.headers['content-type']
      delete request.raw.headers['content-type']
      done()
    })

    app.route({
      method: ['PUT', 'POST'],
      url: '/uploads/:token',
      schema: { tags: ['audio'], summary: 'Upload the audio of a slot, as the body or as the part "file" of a form', params: Token, response: { 200: Voicemail } },
      handler: async request => {
        const { voicemailId } = signedUrls.verify('upload', request.params.token)
        const contentType = request.declaredType
        const length = request.headers['content-length']
        const isForm = request.method === 'POST' && /^\s*multipart\/form-data\s*(;|$)/i.test(contentType ?? '')
        let body: AsyncGenerator<Uint8Array> | undefined
        try {
          const { voicemail, isRepeat } = await uploads.receive(voicemailId, {
            declaredType: isForm ? undefined : contentType,
            declaredBytes: length === undefined ? undefined : Number(length) - (isForm ? MAX_AROUND_BYTES : 0),
            read: async signal => {
              body = readBody(request.raw, signal, deps.pace)
              return isForm ? await readFilePart(contentType ?? '', body) : { declaredType: contentType, chunks: body }
            }
          })
          metrics.upload(isRepeat ? 'repeated' : 'stored', voicemail.fileBytes ?? 0)
          return json.voicemail(voicemail)
        } catch (error) {
          metrics.upload(error instanceof AppError ? error.code : 'internal_error', 0)
          throw error
        } finally {
          await body?.return(undefined)
        }
      }
    })

    // Nothing of it changes once the audio is stored.
    const headersOf = new LRUCache<string, Record<string, string>, StoredVoicemail>({
      max: REMEMBERED_HEADERS,
      memoMethod: (key, _stale, { context }) => audioHeaders(context, key.endsWith(' attachment'))
    })

    app.route({
      method: ['GET', 'HEAD'],
      url: '/downloads/:token',
      schema: {
        tags: ['audio'],
        summary: 'Download or play the audio of a voicemail',
        params: Token,
        querystring: Type.Object({ download: Type.Optional(Type.String({ description: '1 to save it as a file.' })) })
      },
      handler: async (request, reply) => {
        const { voicemailId } = signedUrls.verify('download', request.params.token)
        const { voicemail, file } = await voicemails.openAudio(voicemailId)
        let isOpen = true
        try {
          const isAttachment = request.query.download === '1'
          const about = headersOf.memo(`${voicemailId}${isAttachment ? ' attachment' : ''}`, { context: voicemail })
          const validators = { etag: etagOf(voicemail), lastModifiedMs: voicemail.uploadedAtMs }
          const { headers } = request
          const condition = evaluatePreconditions({
            ifMatch: headers['if-match'],
            ifNoneMatch: headers['if-none-match'],
            ifModifiedSince: headers['if-modified-since'],
            ifUnmodifiedSince: headers['if-unmodified-since']
          }, validators)
          if (condition === 'precondition_failed') throw new AppError('precondition_failed', 'The voicemail is not the one that you have.')
          if (condition === 'not_modified') {
            return await reply.code(304).headers(about).removeHeader('content-type').removeHeader('content-disposition').send()
          }
          const noteAccess = (): void => { void access.noteAccess(voicemail, isAttachment ? 'downloaded' : 'listened', request.ip) }
          const rangeHeader = request.method === 'GET' && rangeStillApplies(headers['if-range']?.toString(), validators) ? headers.range : undefined
          const range = parseByteRange(rangeHeader, file.fileBytes)
          if (range.kind === 'unsatisfiable') {
            throw new AppError('range_not_satisfiable', `The voicemail has ${file.fileBytes} bytes.`, {
              expected: `bytes of 0-${file.fileBytes - 1}`,
              found: rangeHeader ?? '',
              headers: { 'content-range': `bytes */${file.fileBytes}` }
            })
          }
          const [first, last] = range.kind === 'part' ? [range.firstByte, range.lastByte] : [0, file.fileBytes - 1]
          reply.headers(about)
          if (range.kind === 'part') reply.code(206).header('content-range', `bytes ${first}-${last}/${file.fileBytes}`)
          const stream = streamOf(request.raw)
          if (request.method === 'HEAD' || stream?.destroyed === true) return await reply.header('content-length', last - first + 1).send()
          noteAccess()
          metrics.download(last - first + 1)
          if (deps.accelPrefix !== undefined && nginxAgrees(headers, range, validators.etag)) {
            // nginx adds its own to a whole file.
            if (range.kind === 'whole') reply.removeHeader('accept-ranges')
            return await reply.header('x-accel-redirect', deps.accelPrefix + voicemails.relativePath(voicemail)).send()
          }
          reply.header('content-length', last - first + 1)
          isOpen = false
          const { body, giveBack } = file.read(first, last)
          reply.raw.once('close', () => {
            // Fastify does not see that a stream of HTTP/2 was closed before the answer began.
            if (stream !== undefined && body instanceof Readable) body.destroy()
            // What a stream that was broken off had still to send may wait in its connection.
            if (stream?.writableFinished ?? true) giveBack()
          })
          return await reply.send(body)
        } finally {
          if (isOpen) file.close()
        }
      }
    })
  }
}

/** With which nginx asks again for what it could not read. */
const ACCEL_FAILED = 'x-accel-failed'

/**
 * Whether nginx, which reads the conditions and the range of a GET again, answers as we would. It judges If-Match and If-Unmodified-Since before it
 * knows our validators, and reads unusual ranges in a way of its own: such requests, which hardly anybody makes, are answered here.
 */
function nginxAgrees (headers: IncomingHttpHeaders, range: ByteRange, etag: string): boolean {
  if (headers[ACCEL_FAILED] !== undefined || headers['if-match'] !== undefined || headers['if-unmodified-since'] !== undefined) return false
  if (headers.range === undefined) return true
  const ifRange = headers['if-range']
  return range.kind === 'part' && /^bytes=([0-9]{1,15}-[0-9]{0,15}|-[0-9]{1,15})$/.test(headers.range) && (ifRange === undefined || ifRange === etag)
}

function etagOf ({ sha256 }: StoredVoicemail): string {
  return `"${sha256}"`
}

function audioHeaders (voicemail: StoredVoicemail, asAttachment: boolean): Record<string, string> {
  const { sipFrom, createdAtMs, contentType, uploadedAtMs } = voicemail
  return {
    etag: etagOf(voicemail),
    'content-type': servedType(contentType),
    'content-disposition': contentDisposition(downloadName(sipFrom, createdAtMs, contentType), { type: asAttachment ? 'attachment' : 'inline' }),
    'last-modified': new Date(uploadedAtMs).toUTCString(),
    'accept-ranges': 'bytes',
    'cache-control': 'private',
    'content-security-policy': "default-src 'none'; media-src 'self'; frame-ancestors 'none'",
    // A signed URL is all its holder needs, on a page of another origin too.
    'cross-origin-resource-policy': 'cross-origin'
  }
}

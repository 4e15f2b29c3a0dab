import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply } from 'fastify'
import { LRUCache } from 'lru-cache'
import { Type } from 'typebox'
import type { AccessRecord } from '../domain/access-record.js'
import type { Clock } from '../domain/clock.js'
import type { Voicemails } from '../domain/voicemails.js'
import type { Auth } from '../plugins/auth.js'
import { Deleted } from '../schemas/common.js'
import { AccessEvent, NewSlot, Slot, Voicemail, VoicemailChange, VoicemailQuery } from '../schemas/voicemail.js'
import { eventJson, type Json } from './json.js'
import { cutPage, rowsFor } from './pages.js'

export interface VoicemailDependencies {
  voicemails: Voicemails
  access: Pick<AccessRecord, 'list'>
  auth: Auth
  json: Json
  downloadUrlTtlMs: number
  clock: Clock
}

/** What answered lists may take in memory, and what each takes beside its body. */
const LISTS_BYTES = 8 * 1024 * 1024
const LIST_OVERHEAD_BYTES = 1024
const MAX_LIST_AGE_MS = 60_000

interface AnsweredList { headers: Record<string, string | number>, body: Buffer }

/** Its body has been made from the schema before. */
async function sendList (reply: FastifyReply, { headers, body }: AnsweredList): Promise<FastifyReply> {
  return await reply.headers(headers).send(body)
}

const OfAccount = Type.Object({ id: Type.String() })
const One = Type.Object({ id: Type.String(), uuid: Type.String() })

/** A UUID is the same in upper case (RFC 9562 section 4); what is none is found nowhere. */
const idOf = ({ uuid }: { uuid: string }): string => uuid.toLowerCase()

/** The metadata of voicemails: what recorders and owners ask for in JSON. */
export function voicemailRoutes ({ voicemails, access, auth, json, downloadUrlTtlMs, clock }: VoicemailDependencies): FastifyPluginAsyncTypebox {
  return async app => {
    app.addHook('onRequest', auth.resolveAccount)
    const tags = ['voicemails']
    // A mailbox is looked at far more often than it changes. What was answered is good until then, and as long as its signed URLs are nearly new.
    const lists = new LRUCache<string, AnsweredList>({
      maxSize: LISTS_BYTES,
      sizeCalculation: ({ body }) => body.byteLength + LIST_OVERHEAD_BYTES,
      ttl: Math.max(1, Math.min(downloadUrlTtlMs / 100, MAX_LIST_AGE_MS)),
      ttlResolution: 0,
      perf: { now: clock }
    })

    app.post('/accounts/:id/voicemails', {
      schema: { tags, summary: 'Open a slot', params: OfAccount, body: NewSlot, response: { 201: Slot } }
    }, async ({ accountId, body }, reply) => {
      const slot = await voicemails.openSlot(accountId, { sipFrom: body.sip_from, contentType: body.content_type })
      return await reply.code(201).header('location', `/accounts/${accountId}/voicemails/${slot.id}`).send(json.slot(slot))
    })

    app.get('/accounts/:id/voicemails', {
      schema: { tags, summary: 'List voicemails, newest first', params: OfAccount, querystring: VoicemailQuery, response: { 200: Type.Array(Voicemail) } }
    }, async (request, reply) => {
      const { accountId, originalUrl } = request
      const key = `${accountId} ${await voicemails.revision(accountId)} ${originalUrl}`
      const known = lists.get(key)
      if (known !== undefined) return await sendList(reply, known)
      const { status, unread, before } = request.query
      const found = await voicemails.list(accountId, { status, unread }, { before: before?.toLowerCase(), limit: rowsFor(request) })
      const { page, link } = cutPage(request, found.voicemails)
      const headers = { 'content-type': 'application/json; charset=utf-8', 'x-total-count': found.total, 'x-unread-count': found.unread, ...link }
      const list = { headers, body: Buffer.from(String(reply.serialize(page.map(json.voicemail)))) }
      lists.set(key, list)
      return await sendList(reply, list)
    })

    app.get('/accounts/:id/voicemails/:uuid', {
      schema: { tags, summary: 'Show a voicemail', params: One, response: { 200: Voicemail } }
    }, async ({ accountId, params }) => json.voicemail(await voicemails.show(accountId, idOf(params))))

    app.patch('/accounts/:id/voicemails/:uuid', {
      schema: { tags, summary: 'Mark a voicemail as read or unread', params: One, body: VoicemailChange, response: { 200: Voicemail } }
    }, async ({ accountId, params, body }) => json.voicemail(await voicemails.markRead(accountId, idOf(params), body.read)))

    app.delete('/accounts/:id/voicemails/:uuid', {
      schema: { tags, summary: 'Delete a voicemail', params: One, response: { 200: Deleted(Type.String()) } }
    }, async ({ accountId, params, caller, ip }) => {
      const id = idOf(params)
      await voicemails.remove(accountId, id, { caller: caller.name, address: ip })
      return { id, deleted: true as const }
    })

    app.get('/accounts/:id/voicemails/:uuid/events', {
      schema: { tags, summary: 'Who listened to, downloaded or deleted a voicemail', params: One, response: { 200: Type.Array(AccessEvent) } }
    }, async ({ accountId, params }) => {
      const id = idOf(params)
      return (await access.list(accountId, id, await voicemails.exists(accountId, id))).map(eventJson)
    })
  }
}

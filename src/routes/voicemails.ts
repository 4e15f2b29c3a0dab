import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { LRUCache } from 'lru-cache'
import { Type } from 'typebox'
import type { AccessRecord } from '../domain/access-record.js'
import type { Clock } from '../domain/clock.js'
import type { Voicemails } from '../domain/voicemails.js'
import type { Auth } from '../plugins/auth.js'
import { Deleted } from '../schemas/common.js'
import { AccessEvent, NewSlot, Slot, Voicemail, VoicemailChange, VoicemailQuery, type VoicemailJson } from '../schemas/voicemail.js'
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

/** What remembered answers may take in memory, and what each takes beside its body. */
const ANSWERS_BYTES = 8 * 1024 * 1024
const ANSWER_OVERHEAD_BYTES = 1024
const MAX_ANSWER_AGE_MS = 60_000

interface Answer { headers: Record<string, string | number>, body: Buffer }

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
    const answers = new LRUCache<string, Answer>({
      maxSize: ANSWERS_BYTES,
      sizeCalculation: ({ body }) => body.byteLength + ANSWER_OVERHEAD_BYTES,
      ttl: Math.max(1, Math.min(downloadUrlTtlMs / 100, MAX_ANSWER_AGE_MS)),
      ttlResolution: 0,
      perf: { now: clock }
    })

    /** Answers as the last time where nothing of the mailbox has changed since, else with what `find` finds. */
    async function answer (
      { account, originalUrl }: Pick<FastifyRequest, 'account' | 'originalUrl'>, reply: FastifyReply,
      find: () => Promise<{ json: VoicemailJson | VoicemailJson[], headers?: Answer['headers'] }>
    ): Promise<FastifyReply> {
      const key = `${account.id} ${account.revision} ${originalUrl}`
      let known = answers.get(key)
      if (known === undefined) {
        const { json, headers } = await find()
        known = { headers: { 'content-type': 'application/json; charset=utf-8', ...headers }, body: Buffer.from(String(reply.serialize(json))) }
        answers.set(key, known)
      }
      return await reply.headers(known.headers).send(known.body)
    }

    app.post('/accounts/:id/voicemails', {
      schema: { tags, summary: 'Open a slot', params: OfAccount, body: NewSlot, response: { 201: Slot } }
    }, async ({ account, body }, reply) => {
      const slot = await voicemails.openSlot(account.id, { sipFrom: body.sip_from, contentType: body.content_type })
      return await reply.code(201).header('location', `/accounts/${account.id}/voicemails/${slot.id}`).send(json.slot(slot))
    })

    app.get('/accounts/:id/voicemails', {
      schema: { tags, summary: 'List voicemails, newest first', params: OfAccount, querystring: VoicemailQuery, response: { 200: Type.Array(Voicemail) } }
    }, async (request, reply) => await answer(request, reply, async () => {
      const { status, unread, before } = request.query
      const found = await voicemails.list(request.account.id, { status, unread }, { before: before?.toLowerCase(), limit: rowsFor(request) })
      const { page, link } = cutPage(request, found.voicemails)
      return { json: page.map(json.voicemail), headers: { 'x-total-count': found.total, 'x-unread-count': found.unread, ...link } }
    }))

    app.get('/accounts/:id/voicemails/:uuid', {
      schema: { tags, summary: 'Show a voicemail', params: One, response: { 200: Voicemail } }
    }, async (request, reply) => await answer(request, reply, async () => (
      { json: json.voicemail(await voicemails.show(request.account.id, idOf(request.params))) }
    )))

    app.patch('/accounts/:id/voicemails/:uuid', {
      schema: { tags, summary: 'Mark a voicemail as read or unread', params: One, body: VoicemailChange, response: { 200: Voicemail } }
    }, async ({ account, params, body }) => json.voicemail(await voicemails.markRead(account.id, idOf(params), body.read)))

    app.delete('/accounts/:id/voicemails/:uuid', {
      schema: { tags, summary: 'Delete a voicemail', params: One, response: { 200: Deleted(Type.String()) } }
    }, async ({ account, params, caller, ip }) => {
      const id = idOf(params)
      await voicemails.remove(account.id, id, { caller: caller.name, address: ip })
      return { id, deleted: true as const }
    })

    app.get('/accounts/:id/voicemails/:uuid/events', {
      schema: { tags, summary: 'Who listened to, downloaded or deleted a voicemail', params: One, response: { 200: Type.Array(AccessEvent) } }
    }, async ({ account, params }) => {
      const id = idOf(params)
      return (await access.list(account.id, id, await voicemails.exists(account.id, id))).map(eventJson)
    })
  }
}

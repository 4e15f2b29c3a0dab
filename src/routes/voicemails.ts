import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { AccessRecord } from '../domain/access-record.js'
import type { Voicemails } from '../domain/voicemails.js'
import type { Auth } from '../plugins/auth.js'
import { Deleted } from '../schemas/common.js'
import { AccessEvent, NewSlot, Slot, Voicemail, VoicemailChange, VoicemailQuery } from '../schemas/voicemail.js'
import { eventJson, type Json } from './json.js'
import { cutPage, rowsFor } from './pages.js'

export interface VoicemailDependencies { voicemails: Voicemails, access: Pick<AccessRecord, 'list'>, auth: Auth, json: Json }

const OfAccount = Type.Object({ id: Type.String() })
const One = Type.Object({ id: Type.String(), uuid: Type.String() })

/** A UUID is the same in upper case (RFC 9562 section 4); what is none is found nowhere. */
const idOf = ({ uuid }: { uuid: string }): string => uuid.toLowerCase()

/** The metadata of voicemails: what recorders and owners ask for in JSON. */
export function voicemailRoutes ({ voicemails, access, auth, json }: VoicemailDependencies): FastifyPluginAsyncTypebox {
  return async app => {
    app.addHook('onRequest', auth.resolveAccount)
    const tags = ['voicemails']

    app.post('/accounts/:id/voicemails', {
      schema: { tags, summary: 'Open a slot', params: OfAccount, body: NewSlot, response: { 201: Slot } }
    }, async ({ accountId, body }, reply) => {
      const slot = await voicemails.openSlot(accountId, { sipFrom: body.sip_from, contentType: body.content_type })
      return await reply.code(201).header('location', `/accounts/${accountId}/voicemails/${slot.id}`).send(json.slot(slot))
    })

    app.get('/accounts/:id/voicemails', {
      schema: { tags, summary: 'List voicemails, newest first', params: OfAccount, querystring: VoicemailQuery, response: { 200: Type.Array(Voicemail) } }
    }, async (request, reply) => {
      const { status, unread, before } = request.query
      const found = await voicemails.list(request.accountId, { status, unread }, { before: before?.toLowerCase(), limit: rowsFor(request) })
      const { page, link } = cutPage(request, found.voicemails)
      return await reply.headers({ 'x-total-count': found.total, 'x-unread-count': found.unread, ...link }).send(page.map(json.voicemail))
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

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { parseId, unknownKey, type Accounts } from '../domain/accounts.js'
import type { Auth } from '../plugins/auth.js'
import { ApiKey, ApiKeyOnce, NewApiKey } from '../schemas/account.js'
import { Deleted } from '../schemas/common.js'
import { apiKeyJson } from './json.js'

export interface ApiKeyDependencies { accounts: Accounts, auth: Auth }

const OfAccount = Type.Object({ id: Type.String() })
const One = Type.Object({ id: Type.String(), key_id: Type.String() })

/** The keys of accounts; the scope is the admins'. */
export function apiKeyRoutes ({ accounts, auth }: ApiKeyDependencies): FastifyPluginAsyncTypebox {
  return async app => {
    app.addHook('onRequest', auth.requireAdmin)
    app.addHook('onRequest', auth.resolveAccount)
    const tags = ['keys']

    app.post('/accounts/:id/api_keys', {
      schema: { tags, summary: 'Make an API key', params: OfAccount, body: NewApiKey, response: { 201: ApiKeyOnce } }
    }, async ({ account, body }, reply) => {
      const expiresAtMs = body.expires_at == null ? undefined : Date.parse(body.expires_at)
      const key = await accounts.addKey(account.id, { name: body.name, role: body.role, expiresAtMs })
      return await reply.code(201).header('location', `/accounts/${account.id}/api_keys/${key.id}`).send({ ...apiKeyJson(key), key: key.key })
    })

    app.get('/accounts/:id/api_keys', {
      schema: { tags, summary: 'List the API keys of an account', params: OfAccount, response: { 200: Type.Array(ApiKey) } }
    }, async ({ account }) => (await accounts.listKeys(account.id)).map(apiKeyJson))

    app.delete('/accounts/:id/api_keys/:key_id', {
      schema: { tags, summary: 'Take an API key back', params: One, response: { 200: Deleted(Type.Integer()) } }
    }, async ({ account, params }) => {
      const id = parseId(params.key_id) ?? unknownKey()
      await accounts.removeKey(id, account.id)
      return { id, deleted: true as const }
    })
  }
}

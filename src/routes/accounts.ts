import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { unknownAccount, type Accounts } from '../domain/accounts.js'
import type { Auth } from '../plugins/auth.js'
import { Account, AccountQuery, NewAccount, Quota, QuotaChange } from '../schemas/account.js'
import { Deleted } from '../schemas/common.js'
import { accountJson, quotaJson } from './json.js'
import { cutPage, rowsFor } from './pages.js'

export interface AccountDependencies { accounts: Accounts, auth: Auth }

const ById = Type.Object({ id: Type.String() })

/** An account as its owner may see it. */
export function ownAccountRoutes ({ auth }: Pick<AccountDependencies, 'auth'>): FastifyPluginAsyncTypebox {
  return async app => {
    app.addHook('onRequest', auth.resolveAccount)

    app.get('/accounts/:id', {
      schema: { tags: ['accounts'], summary: 'Show an account', params: ById, response: { 200: Account } }
    }, async ({ account }) => accountJson(account))
  }
}

/** The accounts; the scope is the admins'. */
export function accountRoutes ({ accounts, auth }: AccountDependencies): FastifyPluginAsyncTypebox {
  return async app => {
    app.addHook('onRequest', auth.requireAdmin)

    app.post('/accounts', {
      schema: { tags: ['accounts'], summary: 'Add an account', body: NewAccount, response: { 201: Account } }
    }, async ({ body }, reply) => {
      const account = await accounts.add({ sipUri: body.sip_uri, email: body.email, displayName: body.display_name })
      return await reply.code(201).header('location', `/accounts/${account.id}`).send(accountJson(account))
    })

    app.get('/accounts', {
      schema: { tags: ['accounts'], summary: 'List accounts, newest first', querystring: AccountQuery, response: { 200: Type.Array(Account) } }
    }, async (request, reply) => {
      const found = await accounts.list({ before: request.query.before, limit: rowsFor(request) })
      const { page, link } = cutPage(request, found.accounts)
      return await reply.headers({ 'x-total-count': found.total, ...link }).send(page.map(accountJson))
    })

    app.get('/accounts/:id/search', {
      schema: {
        tags: ['accounts'], summary: 'Find an account by user@domain or SIP URI', params: ById, response: { 200: Account }
      }
    }, async ({ params }) => accountJson(await accounts.findByAddress(params.id) ?? unknownAccount()))

    app.delete('/accounts/:id', {
      onRequest: auth.resolveAccount,
      schema: { tags: ['accounts'], summary: 'Delete an account with its voicemails', params: ById, response: { 200: Deleted(Type.Integer()) } }
    }, async ({ account: { id } }) => {
      await accounts.remove(id)
      return { id, deleted: true as const }
    })

    app.get('/accounts/:id/quota', {
      onRequest: auth.resolveAccount,
      schema: { tags: ['accounts'], summary: 'Show what an account may hold, and holds', params: ById, response: { 200: Quota } }
    }, async ({ account }) => quotaJson(account))

    app.patch('/accounts/:id/quota', {
      onRequest: auth.resolveAccount,
      schema: { tags: ['accounts'], summary: 'Change what an account may hold', params: ById, body: QuotaChange, response: { 200: Quota } }
    }, async ({ account, body }) => quotaJson(await accounts.setQuota(account.id, { quotaBytes: body.quota_bytes, quotaMessages: body.quota_messages })))
  }
}

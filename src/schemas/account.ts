import { Type, type Static } from 'typebox'
import { Page, Timestamp } from './common.js'

const nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Union([schema, Type.Null()])

const SipUri = Type.String({ description: 'The address of record: sip:user@domain.', examples: ['sip:bob@sip.example.org'] })
const Email = Type.String({ format: 'email', maxLength: 254 })
const DisplayName = Type.String({ minLength: 1, maxLength: 200 })
const Role = Type.Enum(['admin', 'user'])

export const NewAccount = Type.Object({
  sip_uri: SipUri,
  email: Type.Optional(nullable(Email)),
  display_name: Type.Optional(nullable(DisplayName))
})

export const Account = Type.Object({
  id: Type.Integer(),
  sip_uri: SipUri,
  username: Type.String(),
  domain: Type.String(),
  email: nullable(Type.String()),
  display_name: nullable(Type.String()),
  created_at: Timestamp,
  call_forwardings: Type.Array(Type.Object({}), { description: 'Always empty: recorders read it.' }),
  voicemails: Type.Object({ total: Type.Integer(), unread: Type.Integer() }, { description: 'Counts of those stored.' })
})

export const AccountQuery = Type.Object({
  ...Page,
  before: Type.Optional(Type.Integer({ minimum: 1, description: 'Only accounts with a smaller id.' }))
})

export const NewApiKey = Type.Object({
  name: Type.String({ minLength: 1, maxLength: 200 }),
  role: Type.Optional(Role),
  expires_at: Type.Optional(nullable(Type.String({ format: 'date-time' })))
})

const apiKey = {
  id: Type.Integer(),
  name: Type.String(),
  role: Role,
  created_at: Timestamp,
  expires_at: nullable(Timestamp),
  last_used_at: nullable(Timestamp)
}

export const ApiKey = Type.Object(apiKey)
export const ApiKeyOnce = Type.Object({ ...apiKey, key: Type.String({ description: 'Shown this once.' }) })

const quota = {
  quota_bytes: nullable(Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, description: 'null goes by the settings, 0 is no limit.' })),
  quota_messages: nullable(Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, description: 'null goes by the settings, 0 is no limit.' }))
}

export const Quota = Type.Object({ ...quota, stored_bytes: Type.Integer(), stored_messages: Type.Integer() })
export const QuotaChange = Type.Partial(Type.Object(quota))

export type QuotaJson = Static<typeof Quota>
export type AccountJson = Static<typeof Account>
export type ApiKeyJson = Static<typeof ApiKey>

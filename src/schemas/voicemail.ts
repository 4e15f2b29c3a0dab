import { Type, type Static } from 'typebox'
import { EVENT_KINDS } from '../domain/event-kind.js'
import { AUDIO_TYPES } from '../domain/media-type.js'
import { ERROR_CODES } from '../errors.js'
import { Page, Timestamp } from './common.js'

const nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Union([schema, Type.Null()])

const Id = Type.String({ format: 'uuid', description: 'UUID version 7: ids sort by time.' })
const SipFrom = Type.String({ description: 'The caller: a sip: or sips: URI (RFC 3261 section 19.1).', examples: ['sip:alice@sip.example.org'] })
const ContentType = Type.Enum([...AUDIO_TYPES])
const Status = Type.Enum(['pending', 'stored'])

export const NewSlot = Type.Object({
  sip_from: SipFrom,
  content_type: ContentType
})

export const Slot = Type.Object({
  id: Id,
  sip_from: SipFrom,
  upload_url: Type.String({ description: 'Signed; PUT or POST the audio here.' }),
  download_url: Type.Null(),
  max_upload_size: Type.Integer({ description: 'Bytes.' }),
  content_type: ContentType,
  created_at: Timestamp,
  uploaded_at: Type.Null(),
  status: Status,
  expires_at: Timestamp
})

export const Voicemail = Type.Object({
  id: Id,
  sip_from: SipFrom,
  get_url: nullable(Type.String({ description: 'Signed; the same as download_url.' })),
  file_size: nullable(Type.Integer({ description: 'Bytes.' })),
  content_type: ContentType,
  created_at: Timestamp,
  uploaded_at: nullable(Timestamp),
  download_url: nullable(Type.String({ description: 'Signed; GET the audio here.' })),
  duration: nullable(Type.Number({ description: 'Seconds with three decimals, measured from the audio itself.' })),
  status: Status,
  read_at: nullable(Timestamp),
  sha256: nullable(Type.String({ description: 'Of the whole file, in hexadecimal.' })),
  failure: nullable(Type.Object({
    code: Type.Enum([...ERROR_CODES]),
    detail: Type.String(),
    at: Timestamp
  }, { description: 'What ended the last upload attempt of a slot that is still pending.' }))
})

export const VoicemailQuery = Type.Object({
  status: Type.Optional(Status),
  unread: Type.Optional(Type.Boolean()),
  ...Page,
  before: Type.Optional(Type.String({ format: 'uuid', description: 'Only those older than this one.' }))
})

export const VoicemailChange = Type.Object({ read: Type.Boolean() })

export const AccessEvent = Type.Object({
  kind: Type.Enum([...EVENT_KINDS]),
  at: Timestamp,
  caller: Type.String({ description: 'Who: a signed URL, a key by its id, a token, the retention, the command line.' }),
  address: nullable(Type.String({ description: 'From where.' }))
})

export type AccessEventJson = Static<typeof AccessEvent>
export type SlotJson = Static<typeof Slot>
export type VoicemailJson = Static<typeof Voicemail>

import { Type } from 'typebox'
import { ERROR_CODES } from '../errors.js'

export const Timestamp = Type.String({ format: 'date-time', description: 'ISO 8601 in UTC to the second.', examples: ['2025-10-09T12:59:32Z'] })

export const Page = {
  limit: Type.Integer({ minimum: 1, maximum: 500, default: 100, description: 'How many at most.' })
}

export const Deleted = <T extends ReturnType<typeof Type.String> | ReturnType<typeof Type.Integer>>(id: T) => Type.Object({
  id,
  deleted: Type.Literal(true)
})

/** RFC 9457, with what this service adds to it. */
export const Problem = Type.Object({
  type: Type.String(),
  title: Type.String(),
  status: Type.Integer(),
  detail: Type.String(),
  code: Type.Enum([...ERROR_CODES], { description: 'Stable, for programs.' }),
  message: Type.String({ description: 'The same as detail.' }),
  request_id: Type.String({ description: 'The log has more under it.' }),
  expected: Type.Optional(Type.Union([Type.String(), Type.Number()])),
  found: Type.Optional(Type.Union([Type.String(), Type.Number()])),
  errors: Type.Optional(Type.Record(Type.String(), Type.Array(Type.String()), { description: 'From field to sentences (422).' }))
})

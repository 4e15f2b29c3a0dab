import { Ajv } from 'ajv'
import ajvFormats from 'ajv-formats'
import type { TSchema } from 'typebox'
import { AppError } from '../errors.js'

/** Holds what a command was given against the schema that the HTTP API has for it. Throws `validation_failed`. */
export function requireShape (schema: TSchema): (value: unknown) => void {
  const ajv = new Ajv({ strict: false })
  ajvFormats.default(ajv)
  const validate = ajv.compile(schema)
  return value => {
    if (validate(value)) return
    const [{ instancePath, message = 'is wrong' } = { instancePath: '' }] = validate.errors ?? []
    const field = instancePath.slice(1)
    throw new AppError('validation_failed', `${field} ${message}.`, { errors: { [field]: [message] } })
  }
}

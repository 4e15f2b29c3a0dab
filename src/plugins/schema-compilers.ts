import createSerializers from '@fastify/fast-json-stringify-compiler'
import { Ajv } from 'ajv'
import ajvFormats from 'ajv-formats'
import type { FastifyInstance } from 'fastify'

/**
 * Holds requests against their schemas, and writes answers by theirs. JSON is taken as it is written: `"5"` is no number. What comes
 * in a URL is text, and made a number where one is wanted. A schema is compiled when it is first needed: all of them together
 * would be a third of the start.
 */
export function useSchemas (app: FastifyInstance): void {
  const strict = createAjv(false)
  const textual = createAjv(true)
  app.setValidatorCompiler(({ schema, httpPart }) => {
    const compiled = once(() => (httpPart === 'body' ? strict : textual)().compile(schema))
    return value => {
      const validate = compiled()
      return validate(value) ? { value } : { error: validate.errors ?? [] }
    }
  })
  const compileSerializer = createSerializers()()
  app.setSerializerCompiler(({ schema, method, url, httpStatus = '' }) => {
    const compiled = once(() => compileSerializer({ schema, method, url, httpStatus }))
    return body => compiled()(body)
  })
}

/** The schemas themselves are constants, which the tests hold against the meta-schema. */
function createAjv (coerceTypes: boolean): () => Ajv {
  return once(() => {
    const ajv = new Ajv({ allErrors: true, useDefaults: true, coerceTypes, meta: false, validateSchema: false })
    ajvFormats.default(ajv)
    return ajv
  })
}

function once<T extends object> (make: () => T): () => T {
  let made: T | undefined
  return () => {
    made ??= make()
    return made
  }
}

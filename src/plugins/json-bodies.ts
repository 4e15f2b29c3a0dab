import { Ajv } from 'ajv'
import ajvFormats from 'ajv-formats'
import type { FastifyInstance } from 'fastify'

/** JSON is taken as it is written: `"5"` is no number. What comes in a URL is text, and made a number where one is wanted. */
export function takeJson (app: FastifyInstance): void {
  const strict = new Ajv({ allErrors: true, useDefaults: true, coerceTypes: false })
  const textual = new Ajv({ allErrors: true, useDefaults: true, coerceTypes: true })
  for (const ajv of [strict, textual]) ajvFormats.default(ajv)
  app.setValidatorCompiler(({ schema, httpPart }) => (httpPart === 'body' ? strict : textual).compile(schema))

  // Some clients declare JSON on requests without a body: it is for the schema to say whether one was needed.
  const parse = app.getDefaultJsonParser('error', 'error')
  app.removeContentTypeParser(['application/json', 'text/plain'])
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, undefined)
    else void parse(request, String(body), done)
  })
}

import type { FastifyInstance } from 'fastify'
import { AppError } from '../errors.js'
import { streamOf } from './http2-stream.js'
import type { SocketAnswers } from './node-answers.js'

/** JSON is small: who has not sent all of it by then is not going to. */
const DEADLINE_MS = 30_000

/** Cuts off senders whose JSON does not come to its end, in the scope that it is given. */
export function limitBodyTime (app: FastifyInstance, { answerUnparsable }: SocketAnswers, deadlineMs = DEADLINE_MS): void {
  app.addHook('preParsing', async ({ raw }, reply, payload) => {
    const timer = setTimeout(() => {
      // Answered already (a type that is not taken): a second answer would pass for that of the next request.
      if (reply.raw.headersSent) (streamOf(raw) ?? raw).destroy()
      else if (streamOf(raw) !== undefined) raw.destroy(new AppError('sender_too_slow', 'The request did not come in time.', { headers: { connection: 'close' } }))
      else answerUnparsable(Object.assign(new Error('the body did not come in time'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' }), raw.socket)
    }, deadlineMs)
    const clear = (): void => { clearTimeout(timer) }
    raw.once('end', clear).once('close', clear)
    return payload
  })
}

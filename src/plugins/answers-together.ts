import type { FastifyInstance } from 'fastify'
import { gatherTurn } from './turn.js'

/**
 * Sends the answers that get ready in one turn of the event loop one right after the other, at its end. The first wakes whoever waits for
 * it on another core (a proxy, a player), and finds it awake for the rest: waking it for each anew cost a third of a small answer.
 */
export function sendTogether (app: FastifyInstance): void {
  const whenTurnEnds = gatherTurn<() => void>(sendings => { for (const send of sendings) send() })
  app.addHook('onSend', (_request, _reply, payload, done) => { whenTurnEnds(() => { done(null, payload) }) })
}

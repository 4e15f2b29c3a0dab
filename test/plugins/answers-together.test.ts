import fastify from 'fastify'
import t from 'tap'
import { sendTogether } from '../../src/plugins/answers-together.js'

t.test('answers that get ready in one turn of the event loop are sent one right after the other, in their order', async t => {
  const app = fastify()
  t.after(async () => { await app.close() })
  const steps: string[] = []
  app.addHook('onSend', async (request, _reply, payload) => {
    steps.push(`ready ${request.url}`)
    return payload
  })
  sendTogether(app)
  app.addHook('onSend', (request, _reply, payload, done) => {
    steps.push(`sent ${request.url}`)
    done(null, payload)
  })
  app.get('/:name', async () => 'answer')
  await app.ready()
  const answers = await Promise.all(['/a', '/b', '/c'].map(async url => await app.inject(url)))
  t.strictSame(answers.map(({ statusCode, body }) => [statusCode, body]), Array.from({ length: 3 }, () => [200, 'answer']))
  t.strictSame(steps, ['ready /a', 'ready /b', 'ready /c', 'sent /a', 'sent /b', 'sent /c'])
  t.equal((await app.inject('/d')).body, 'answer', 'one alone does not wait for others')
})

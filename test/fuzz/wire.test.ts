import t from 'tap'
import { fuzzWire } from '../../torture/wire-runs.js'
import { startService } from '../helper.js'

t.test('whatever comes over the wire is answered or refused, leaves nothing, and is in nobody else\'s way', async t => {
  const { url, adminKey, dataFolder } = await startService(t, { settings: { LOG_LEVEL: 'fatal', ACCOUNT_OPEN_SLOTS: '0' } })
  const { cases, answers, crashes } = await fuzzWire({ url, adminKey, dataFolder, seed: 1, goesOn: ({ cases }) => cases < 400 })
  t.comment(`${cases} cases, ${crashes.length} crashes: ${JSON.stringify(answers)}`)
  t.strictSame(crashes, [])
  t.equal(cases, 400)
  t.ok((answers['200'] ?? 0) > 0 && (answers['400'] ?? 0) > 0, 'some are answered and some refused')
})

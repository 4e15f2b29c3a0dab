import t from 'tap'
import { randomFrom, torture } from '../../torture/rounds.js'

t.test('a server that is killed under load, again and again, keeps every promise that it gave', async t => {
  const tally = await torture({
    command: [process.execPath, '--import=tsx', 'src/main.ts'],
    folder: t.testdir(),
    rounds: 3,
    random: randomFrom(3),
    workers: 4
  })
  t.comment(JSON.stringify(tally))
  t.match(tally, { killed: 3, lost: 0, comeBack: 0, leftBehind: 0 })
  t.ok(tally.uploadsAcknowledged > 0, 'there were some to keep')
})

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { randomFrom, torture } from './rounds.js'

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '100' }, seed: { type: 'string', default: '1' } } })
const folder = await mkdtemp(join(tmpdir(), 'voicemaild-torture-'))
const tally = await torture({
  command: [process.execPath, 'dist/main.js'],
  folder,
  rounds: Number(values.rounds),
  random: randomFrom(Number(values.seed)),
  onRound: tally => { process.stderr.write(`\r${JSON.stringify(tally)} `) }
})
process.stderr.write('\n')
console.log(JSON.stringify({ seed: Number(values.seed), ...tally }))
if (tally.lost + tally.comeBack + tally.leftBehind > 0) process.exitCode = 1
else await rm(folder, { recursive: true, force: true })

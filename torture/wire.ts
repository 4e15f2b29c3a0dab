import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { startServer } from './server.js'
import { fuzzWire } from './wire-runs.js'

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '1' }, seed: { type: 'string', default: String(Date.now() % 1e6) }, case: { type: 'string' } } })
const folder = await mkdtemp(join(tmpdir(), 'voicemaild-wire-'))
const server = await startServer([process.execPath, '--import=tsx', 'src/main.ts'], { DATA_DIR: join(folder, 'data') })
const untilMs = performance.now() + Number(values.minutes) * 60_000
const tally = await fuzzWire({
  url: server.url,
  dataFolder: join(folder, 'data'),
  seed: Number(values.seed),
  ...values.case !== undefined && { first: Number(values.case) },
  goesOn: ({ cases }) => {
    if (cases % 100 === 0) process.stderr.write(`\r${cases} cases `)
    return values.case === undefined ? performance.now() < untilMs : cases === 0
  },
  isAlive: () => server.child.exitCode === null && server.child.signalCode === null
})
await server.stop()
process.stderr.write('\n')
console.log(JSON.stringify({ seed: Number(values.seed), ...tally, crashes: tally.crashes.length }))
for (const crash of tally.crashes) console.log(crash)
if (tally.crashes.length > 0) process.exitCode = 1
else await rm(folder, { recursive: true })

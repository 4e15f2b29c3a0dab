import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Runs tests (the files and options of the command line, for tap) against dist/voicemaild, alone in a folder with nothing of Node in reach. */

/** So many services and programs have to be started as the executable at least, or else the tests were of something else. */
const LEAST = { service: 50, program: 60 }

const folder = await mkdtemp(join(tmpdir(), 'voicemaild-alone-'))
const starts = join(folder, 'starts')
try {
  await copyFile('dist/voicemaild', join(folder, 'voicemaild'))
  const tap = spawn('tap', process.argv.slice(2), { stdio: 'inherit', env: { ...process.env, VOICEMAILD_PROGRAM: join(folder, 'voicemaild'), VOICEMAILD_STARTS: starts } })
  const [code] = await once(tap, 'exit')
  process.exitCode = Number(code ?? 1)
  const kinds = (await readFile(starts, 'utf8').catch(() => '')).split('\n')
  for (const [kind, least] of Object.entries(LEAST)) {
    const count = kinds.filter(each => each === kind).length
    console.log(`# started as the executable: ${count} times as a ${kind}, expected at least ${least}`)
    if (count < least) process.exitCode = 1
  }
} finally {
  await rm(folder, { recursive: true, force: true })
}

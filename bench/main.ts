import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { BYTES, SIZES, writeAudio, type Audio, type Size } from './audio.js'
import { hold, type ContestResult } from './contest.js'
import type { Figure } from './figure.js'
import { GOALS, judge } from './goals.js'
import { install } from './install.js'
import { describeMachine } from './machine.js'
import { readOptions, USAGE, type Options } from './options.js'
import { profileRun } from './profile/profile.js'
import { report } from './report.js'
import { downloadScene } from './scenes/downloads.js'
import { growthScene } from './scenes/growth.js'
import { listScene, slotScene } from './scenes/json.js'
import { memoryScene } from './scenes/memory.js'
import { proxyScene } from './scenes/nginx.js'
import type { Props, Scene } from './scenes/scene.js'
import { startScene } from './scenes/start.js'
import { uploadScene, type Cell } from './scenes/uploads.js'
import { PROGRAM } from './servers/voicemaild.js'
import { openStage, type Stage } from './stage.js'

/** Lets a server take a profile of itself when it is told to. */
const PRELOAD = fileURLToPath(new URL('profile/preload.js', import.meta.url))

/** What shells say of a program that was interrupted. */
const INTERRUPTED = 130

const sinceMs = performance.now()
const tell = (line: string): void => { process.stderr.write(`${((performance.now() - sinceMs) / 1000).toFixed(0).padStart(4)} s  ${line}\n`) }

async function main (options: Options): Promise<void> {
  await install(options.isQuick || options.isProfile, tell)
  const stage = await openStage(options.dataFolder, options.isProfile ? ['--import', PRELOAD] : [])
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      tell(`${signal}: deleting what was written`)
      void stage.close().finally(() => { process.exit(INTERRUPTED) })
    })
  }
  try {
    const text = options.isProfile ? await profile(stage, options) : await measure(stage, options)
    console.log(text)
    if (!options.isQuick && options.only === undefined) await writeFile(new URL(options.isProfile ? 'PROFILES.md' : 'RESULTS.md', import.meta.url), text)
  } finally {
    tell('deleting what was written')
    await stage.close()
  }
}

async function propsOf (stage: Stage, { isQuick, isProfile, rounds, seconds, voicemails }: Options): Promise<Props> {
  return { stage, isQuick: isQuick || isProfile, rounds, seconds, voicemails, tell, audio: await writeAudios(stage) }
}

function wantedBy ({ only }: Options): (name: string) => boolean {
  return name => only === undefined || name.toLowerCase().includes(only)
}

async function measure (stage: Stage, options: Options): Promise<string> {
  const { isQuick, rounds, seconds, only } = options
  const props = await propsOf(stage, options)
  const isWanted = wantedBy(options)
  const results: ContestResult[] = []
  const found: Figure[] = []
  for (const { names, prepare } of scenesOf(props)) {
    if (!names.some(isWanted)) continue
    stage.emptyFolders()
    tell(`preparing ${names.find(isWanted) ?? ''}`)
    const { contests = [], figures = [] } = await prepare(isWanted)
    found.push(...figures)
    for (const contest of contests) results.push(await hold(contest, rounds, tell))
    await stage.stopServers()
  }
  if (results.length + found.length === 0) throw new Error(`no measure has ${JSON.stringify(only)} in its name`)
  const head = `# What the benchmark last found\n\nMade by \`npm run bench${isQuick ? ' -- --quick' : ''}\`: ${rounds} rounds, ${seconds} seconds a run; ` +
    'medians over the rounds, with the least and the most in brackets; ratios are taken within a round.\n\n'
  return head + await describeMachine(stage.folder) + '\n' + report(results, found, judge(GOALS, results, found))
}

/** Every contest once, for voicemaild alone, with a profile taken. */
async function profile (stage: Stage, options: Options): Promise<string> {
  const props = await propsOf(stage, options)
  const sections: string[] = []
  for (const { prepare } of contestScenesOf(props)) {
    stage.emptyFolders()
    const { contests = [] } = await prepare(wantedBy(options))
    for (const contest of contests) {
      for (const { pid, ...contender } of contest.contenders) {
        if (pid === undefined || !contest.subjects.includes(contender.name)) continue
        tell(`${contest.name}: ${contender.name}`)
        sections.push(await profileRun(stage, contest, { ...contender, pid }, PROGRAM))
      }
    }
    await stage.stopServers()
  }
  const head = '# Where the time goes\n\nMade by `npm run bench -- --profile`: each measure once, with samples taken of the main thread, which makes everything slower. ' +
    'A function of node that wakes a thread, or the client, is charged with what the other one does before the core comes back to it.\n\n'
  return head + await describeMachine(stage.folder) + '\n' + sections.join('\n')
}

async function writeAudios ({ folder }: Stage): Promise<Record<Size, Audio>> {
  const place = join(folder, 'audio')
  await mkdir(place)
  const [small, middle, large] = await Promise.all(SIZES.map(async size => await writeAudio(place, BYTES[size])))
  if (small === undefined || middle === undefined || large === undefined) throw new Error('three sizes')
  return { '40 KB': small, '200 KB': middle, '2 MB': large }
}

function scenesOf (props: Props): Scene[] {
  return [
    startScene(props.stage, props.isQuick ? 3 : 10),
    memoryScene(props.stage, props.isQuick ? 1 : 3, !props.isQuick),
    ...contestScenesOf(props),
    ...props.isQuick ? [] : [growthScene(props)]
  ]
}

function contestScenesOf (props: Props): Scene[] {
  const cellsOf = (...sizes: Size[]): Cell[] => sizes.flatMap(size => (props.isQuick ? [16] : [1, 16, 64]).map(connections => ({ size, connections })))
  const uploads = props.isQuick
    ? [cellsOf('40 KB', '200 KB')]
    // What 2 MB leave on the disk goes after each contest.
    : [cellsOf('40 KB'), cellsOf('200 KB'), ...cellsOf('2 MB').map(cell => [cell])]
  return [
    ...uploads.map(cells => uploadScene(props, cells)),
    downloadScene(props),
    ...props.isQuick ? [] : [proxyScene(props)],
    slotScene(props),
    listScene(props)
  ]
}

let options
try {
  options = readOptions(process.argv.slice(2))
} catch (error) {
  console.error(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`)
  process.exit(2)
}
try {
  await main(options)
} catch (error) {
  console.error(`The benchmark failed: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}

import type { Config } from '../config.js'
import { check, type Finding } from '../domain/check.js'
import type { Clock } from '../domain/clock.js'
import { sweep } from '../domain/sweeper.js'
import { createAudioUpkeep } from '../stores/audio-upkeep.js'
import { backUp, restore, type Copied } from '../stores/backup.js'
import { withData, type Data } from './data.js'
import type { Output } from './output.js'

interface Options { json?: boolean }

/** Compares rows with files. Returns whether everything is as it should be. */
export async function checkData (config: Config, clock: Clock, output: Output, options: Options & { deep?: boolean, repair?: boolean }): Promise<boolean> {
  return await withData(config, clock, async data => {
    const { files, findings } = await checkFiles(config, data, {
      deep: options.deep ?? false, repair: options.repair ?? false, onProgress: progressOf(output, 'Checking')
    })
    if (options.json === true) {
      output.print(JSON.stringify({ files, findings }, null, 2))
    } else {
      for (const finding of findings) output.print(sentence(finding))
      output.print(`${files} files checked, ${findings.length} findings`)
    }
    return findings.length === 0
  })
}

/** The check of one data folder, as the command and the server's look around at start run it. */
export async function checkFiles (config: Config, data: Data, mode: Parameters<typeof check>[1]): ReturnType<typeof check> {
  const { upkeepStore, audioStore, clock } = data
  return await check({ upkeepStore, audioUpkeep: createAudioUpkeep(config.dataFolder), clock, relativePath: audioStore.relativePath }, mode)
}

/** Returns whether every file was there to be copied. */
export async function backUpData (config: Config, clock: Clock, output: Output, target: string, options: Options): Promise<boolean> {
  return await withData(config, clock, async ({ copyRows, voicemailStore }) => tellCopied(output, options, await backUp(target, {
    dataFolder: config.dataFolder,
    copyRows,
    isFileKnown: voicemailStore.isFileKnown,
    onProgress: progressOf(output, 'Copying')
  }), `Backed up to ${target}`))
}

/** Returns whether every file was there to be copied. */
export async function restoreData (config: Config, output: Output, source: string, options: Options): Promise<boolean> {
  const copied = await restore(source, config.dataFolder, progressOf(output, 'Copying'))
  return tellCopied(output, options, copied, `Restored to ${config.dataFolder}`)
}

export async function sweepData (config: Config, clock: Clock, { print }: Output, options: Options & { dryRun?: boolean }): Promise<void> {
  await withData(config, clock, async data => {
    const swept = await sweep({ ...data, ...config, graceMs: longestUploadMs(config), isReceiving: () => false }, { dryRun: options.dryRun ?? false })
    if (options.json === true) print(JSON.stringify(swept))
    else print(`${options.dryRun === true ? 'Would remove' : 'Removed'} ${swept.slots} expired slots and ${swept.voicemails} voicemails`)
  })
}

/**
 * A server beside this command may still receive what began before a slot expired, for as long as its slowest sender takes: for
 * ever where no rate is asked of senders, and then such slots are left to the server. The last stretch counts, and what the disk takes.
 */
function longestUploadMs ({ limits: { maxUploadBytes }, pace: { minBytesPerSecond } }: Config): number {
  return maxUploadBytes / minBytesPerSecond * 1000 + 10 * 60_000
}

function tellCopied ({ print }: Output, { json }: Options, copied: Copied, what: string): boolean {
  const { files, missing } = copied
  if (json === true) {
    print(JSON.stringify(copied, null, 2))
  } else {
    for (const fileName of missing) print(`${fileName}: this file is named by a voicemail, but is not there`)
    print(`${what}: ${files} files, ${copied.copied} of them copied, ${copied.removed} removed`)
  }
  return missing.length === 0
}

function sentence ({ kind, path, voicemail, expected, found, repair }: Finding): string {
  const facts = {
    strange_file: 'no voicemail knows this file',
    missing_file: `the audio of voicemail ${voicemail} is gone`,
    wrong_size: `voicemail ${voicemail} should have ${expected} bytes, and has ${found}`,
    wrong_hash: `voicemail ${voicemail} should have the SHA-256 ${expected}, and has ${found}`
  }
  return `${path}: ${facts[kind]}${repair === null ? '' : `; ${repair}`}`
}

/** A line that is written over again and again on a terminal; nothing where there is none. */
function progressOf ({ progress }: Output, what: string): (done: number, total: number) => void {
  let shownPercent = -1
  return (done, total) => {
    const percent = total === 0 ? 100 : Math.floor(done / total * 100)
    if (progress === undefined || percent === shownPercent) return
    shownPercent = percent
    progress(`${what} [${'#'.repeat(percent / 4).padEnd(25)}] ${percent} %`, done === total)
  }
}

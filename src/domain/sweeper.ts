import type { AudioStore } from '../stores/audio-store.js'
import type { EventStore } from '../stores/event-store.js'
import type { Due, UpkeepStore } from '../stores/upkeep-store.js'
import type { VoicemailStore } from '../stores/voicemail-store.js'
import type { Clock } from './clock.js'
import { finishRemovals, removeFiles } from './removed-files.js'

/** How many went, or would. */
export interface Swept { slots: number, voicemails: number, deletions: number }

export interface SweeperOptions {
  voicemailStore: VoicemailStore
  audioStore: AudioStore
  eventStore: EventStore
  upkeepStore: UpkeepStore
  clock: Clock
  /** 0 keeps for ever. */
  retentionMs: number
  retentionReadMs: number
  auditMs: number
  /** An expired slot is left alone as long as an upload that began in time may still be under way. */
  graceMs: number
  /** Whether an upload to that slot is known to be under way. */
  isReceiving: (id: string) => boolean
}

/** Small, so that requests do not wait, and because some file systems slow down after many deletions at once. */
const BATCH = 100

/** Takes away whose time is over: expired slots, voicemails by age, the record of old deletions. In bounded batches, until `signal`. */
export async function sweep (options: SweeperOptions, { dryRun = false, signal }: { dryRun?: boolean, signal?: AbortSignal } = {}): Promise<Swept> {
  const { voicemailStore, upkeepStore, eventStore, clock } = options
  const nowMs = clock()
  const swept: Swept = { slots: 0, voicemails: 0, deletions: 0 }
  const isStopped = (): boolean => signal?.aborted === true

  /** What a dry run has counted: a voicemail can be due for its age and for having been read. */
  const counted = new Set<string>()

  /** Runs until a batch takes nothing away; a dry run looks once, without a bound. */
  async function inBatches (find: (limit: number) => Promise<Due[]>, remove: (due: Due[]) => Promise<number>): Promise<number> {
    if (dryRun) {
      const before = counted.size
      for (const { id } of await find(-1)) counted.add(id)
      return counted.size - before
    }
    let count = 0
    for (let removed = 1; removed > 0 && !isStopped(); count += removed) {
      removed = await remove(await find(BATCH))
      await new Promise(resolve => { setImmediate(resolve) })
    }
    return count
  }

  async function removeVoicemails (due: Due[]): Promise<number> {
    const removed = await Promise.all(due.map(async ({ accountId, id }) =>
      await voicemailStore.remove(accountId, id, { caller: 'retention', address: null, atMs: nowMs })))
    await removeFiles(options, removed.flatMap(row => row?.fileName ?? []))
    return removed.filter(row => row !== undefined).length
  }

  const removeSlots = async (due: Due[]): Promise<number> => await upkeepStore.removeSlots(due.map(({ id }) => id))
  /** Looks on where all that it found are being received. */
  async function findSlots (limit: number): Promise<Due[]> {
    for (let held = 0; ;) {
      const due = await upkeepStore.expiredSlots(nowMs - options.graceMs, limit < 0 ? limit : limit + held)
      const free = due.filter(({ id }) => !options.isReceiving(id))
      if (free.length > 0 || due.length === held) return free
      held = due.length
    }
  }

  swept.slots = await inBatches(findSlots, removeSlots)
  if (options.retentionMs > 0) {
    swept.voicemails += await inBatches(async limit => await upkeepStore.storedBefore(nowMs - options.retentionMs, limit), removeVoicemails)
  }
  if (options.retentionReadMs > 0) {
    swept.voicemails += await inBatches(async limit => await upkeepStore.readBefore(nowMs - options.retentionReadMs, limit), removeVoicemails)
  }
  if (dryRun) {
    swept.deletions = await eventStore.countDeletions(nowMs - options.auditMs)
  } else {
    // What a full or a broken disk kept when it was to go.
    await finishRemovals(options)
    for (let forgotten = 1; forgotten > 0 && !isStopped(); swept.deletions += forgotten) {
      forgotten = await eventStore.forgetDeletions(nowMs - options.auditMs, BATCH)
    }
  }
  return swept
}

import type { EventStore } from '../stores/event-store.js'
import type { EventRow } from '../stores/tables.js'
import type { Clock } from './clock.js'
import { unknownVoicemail } from './stored-voicemail.js'

/** Who listened to, downloaded or deleted what, when and from where. */
export interface AccessRecord {
  /** Notes that audio was sent; resolves when it is kept, and never throws. Range requests of one listening are one event. */
  noteAccess: (voicemail: { id: string, accountId: number }, kind: 'listened' | 'downloaded', address: string) => Promise<void>
  /** Oldest first; of a deleted voicemail its deletion, as long as that is kept. Throws `not_found`. */
  list: (accountId: number, voicemailId: string, exists: boolean) => Promise<EventRow[]>
}

/** Requests for the same audio from the same address within this time are one listening. */
const ONE_LISTENING_MS = 10 * 60_000
/** Of one voicemail; the oldest go first. */
const MAX_EVENTS = 1000
/** Listenings under way that are remembered, so that their range requests are told from new ones. */
const MAX_REMEMBERED = 10_000

export function createAccessRecord ({ eventStore, clock }: { eventStore: EventStore, clock: Clock }): AccessRecord {
  /** When each was last noted, oldest first. */
  const notedAtMs = new Map<string, number>()

  return {
    noteAccess: async ({ id, accountId }, kind, address) => {
      const key = `${id} ${kind} ${address}`
      const nowMs = clock()
      if (nowMs - (notedAtMs.get(key) ?? -Infinity) < ONE_LISTENING_MS) return
      notedAtMs.delete(key)
      notedAtMs.set(key, nowMs)
      const [oldest] = notedAtMs.keys()
      if (notedAtMs.size > MAX_REMEMBERED && oldest !== undefined) notedAtMs.delete(oldest)
      try {
        await eventStore.add({ voicemailId: id, accountId, kind, caller: 'signed URL', address, atMs: nowMs }, MAX_EVENTS)
      } catch {
        // Nobody is kept from hearing a message by a disk that takes no note of it; the next request tries again.
        notedAtMs.delete(key)
      }
    },
    list: async (accountId, voicemailId, exists) => {
      const events = await eventStore.list(accountId, voicemailId)
      return exists || events.length > 0 ? events : unknownVoicemail()
    }
  }
}

import { and, asc, count, eq, inArray, lt, sql } from 'drizzle-orm'
import type { Database } from './database.js'
import { events, voicemails, type EventRow } from './tables.js'

export type NewEvent = Omit<EventRow, 'id'>

/** The record of access to voicemails. */
export interface EventStore {
  /** Adds an event, where the voicemail is still there; of more than `limit` the oldest go. */
  add: (event: NewEvent, limit: number) => Promise<void>
  /** Oldest first. */
  list: (accountId: number, voicemailId: string) => Promise<EventRow[]>
  countDeletions: (beforeMs: number) => Promise<number>
  /** Forgets at most `limit` deletions from before that moment; returns how many. */
  forgetDeletions: (beforeMs: number, limit: number) => Promise<number>
}

export function createEventStore ({ read, write, prepare }: Database): EventStore {
  const voicemailId = sql.placeholder('voicemailId')
  const ofVoicemail = eq(events.voicemailId, voicemailId)
  const exists = read.select({ id: voicemails.id }).from(voicemails).where(eq(voicemails.id, voicemailId)).prepare()
  const insert = prepare.change(read.insert(events).values({
    voicemailId,
    accountId: sql.placeholder('accountId'),
    kind: sql.placeholder('kind'),
    caller: sql.placeholder('caller'),
    address: sql.placeholder('address'),
    atMs: sql.placeholder('atMs')
  }))
  const countOf = read.select({ n: count() }).from(events).where(ofVoicemail).prepare()
  const oldest = read.select({ id: events.id }).from(events).where(ofVoicemail).orderBy(asc(events.id)).limit(sql.placeholder('limit')).prepare()
  const all = read.select().from(events).where(and(ofVoicemail, eq(events.accountId, sql.placeholder('accountId')))).orderBy(asc(events.id)).prepare()
  const isOldDeletion = and(sql`${events.kind} = 'deleted'`, lt(events.atMs, sql.placeholder('beforeMs')))
  const countOldDeletions = read.select({ n: count() }).from(events).where(isOldDeletion).prepare()
  const oldDeletions = read.select({ id: events.id }).from(events).where(isOldDeletion).limit(sql.placeholder('limit')).prepare()
  const forget = (ids: Array<{ id: number }>): void => {
    if (ids.length > 0) read.delete(events).where(inArray(events.id, ids.map(({ id }) => id))).run()
  }

  return {
    add: async (event, limit) => {
      await write(() => {
        const { voicemailId } = event
        if (exists.get({ voicemailId }) === undefined) return
        insert(event)
        const tooMany = (countOf.get({ voicemailId })?.n ?? 0) - limit
        if (tooMany > 0) forget(oldest.all({ voicemailId, limit: tooMany }))
      })
    },
    list: async (accountId, voicemailId) => all.all({ accountId, voicemailId }),
    countDeletions: async beforeMs => countOldDeletions.get({ beforeMs })?.n ?? 0,
    forgetDeletions: async (beforeMs, limit) => await write(() => {
      const ids = oldDeletions.all({ beforeMs, limit })
      forget(ids)
      return ids.length
    })
  }
}

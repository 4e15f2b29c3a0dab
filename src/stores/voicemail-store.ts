import { and, count, desc, eq, isNotNull, isNull, lt, lte, sql, type SQL } from 'drizzle-orm'
import { AppError } from '../errors.js'
import type { Database } from './database.js'
import { accounts, events, removals, totals, voicemails, type AccountRow, type EventRow, type VoicemailRow } from './tables.js'

export type NewSlot = Pick<VoicemailRow, 'id' | 'accountId' | 'sipFrom' | 'contentType' | 'maxUploadBytes' | 'createdAtMs' | 'expiresAtMs'>
/** What the audio of a voicemail turned out to be. */
export interface StoredAudio { fileName: string, fileBytes: number, durationMs: number, sha256: string }
export interface Failure { failureCode: NonNullable<VoicemailRow['failureCode']>, failureDetail: string, failureAtMs: number }
/** Who deleted a voicemail, from where and when. */
export type Deletion = Pick<EventRow, 'caller' | 'address' | 'atMs'>
export interface VoicemailFilter { status?: 'pending' | 'stored' | undefined, unread?: boolean | undefined }
export interface VoicemailPage { voicemails: VoicemailRow[], total: number, unread: number }

/** Slots that may still be filled, and the bytes that they may bring. */
export interface OpenSlots { count: number, bytes: number }
export interface Usage {
  account: Pick<AccountRow, 'quotaBytes' | 'quotaMessages' | 'storedBytes' | 'storedMessages'>
  /** Of this account, and of all. */
  openOfAccount: OpenSlots
  open: OpenSlots
}

/** The rows of voicemails and of the files that still have to go. */
export interface VoicemailStore {
  /** `judge` sees, inside the write, what the new slot would stand beside, and throws where it may not. */
  addSlot: (slot: NewSlot, judge: (usage: Usage) => void) => Promise<VoicemailRow>
  find: (id: string) => Promise<VoicemailRow | undefined>
  findOf: (accountId: number, id: string) => Promise<VoicemailRow | undefined>
  /** Newest first, those before the id `before`; `total` counts what the filter matches, `unread` all that is stored and unread. */
  list: (accountId: number, filter: VoicemailFilter, page: { before: string | undefined, limit: number }) => Promise<VoicemailPage>
  /** Undefined where the slot is no longer pending. */
  markStored: (id: string, audio: StoredAudio, atMs: number) => Promise<VoicemailRow | undefined>
  /** Keeps why the last attempt failed, where the slot is still pending. */
  noteFailure: (id: string, failure: Failure) => Promise<void>
  /** Marks a stored voicemail as read (the first moment stays) or, with null, as unread. */
  markRead: (id: string, atMs: number | null) => Promise<VoicemailRow | undefined>
  /**
   * Takes the row away, notes its file, and keeps of its events only that it was deleted; all in one transaction. Undefined
   * where there was none.
   */
  remove: (accountId: number, id: string, deletion: Deletion) => Promise<VoicemailRow | undefined>
  openSlots: (nowMs: number) => Promise<OpenSlots>
  isFileKnown: (fileName: string) => Promise<boolean>
  /** Names of files that were to go and may still be there. */
  pendingRemovals: () => Promise<string[]>
  forgetRemovals: (fileNames: string[]) => Promise<void>
}

const isPending = isNull(voicemails.uploadedAtMs)
const isStored = isNotNull(voicemails.uploadedAtMs)
const isUnread = and(isStored, isNull(voicemails.readAtMs))

export function createVoicemailStore ({ read, write, prepare }: Database): VoicemailStore {
  const id = sql.placeholder('id')
  const hasId = eq(voicemails.id, id)
  const ofAccount = eq(voicemails.accountId, sql.placeholder('accountId'))
  const noFailure = { failureCode: null, failureDetail: null, failureAtMs: null }
  const value = (name: string): SQL => sql`${sql.placeholder(name)}`

  const byId = prepare.rows(voicemails, read.select().from(voicemails).where(hasId))
  const byAccountAndId = prepare.rows(voicemails, read.select().from(voicemails).where(and(hasId, ofAccount)))
  const knowsFile = read.select({ id: voicemails.id }).from(voicemails).where(eq(voicemails.fileName, sql.placeholder('fileName'))).prepare()
  const sums = { pendingMessages: count(), pendingBytes: sql<number>`coalesce(sum(${voicemails.maxUploadBytes}), 0)` }
  const isExpired = and(isPending, lte(voicemails.expiresAtMs, sql.placeholder('nowMs')))
  const sumExpired = read.select(sums).from(voicemails).where(isExpired).prepare()
  // The plus keeps SQLite from going through all that wait of this account, where it needs the few that are expired.
  const sumExpiredOfAccount = read.select(sums).from(voicemails).where(and(isExpired, sql`+${voicemails.accountId} = ${sql.placeholder('accountId')}`)).prepare()
  const allPending = prepare.rows(totals, read.select().from(totals))
  const accountById = prepare.rows(accounts, read.select().from(accounts).where(eq(accounts.id, sql.placeholder('accountId'))))
  const forgetEvents = prepare.change(read.delete(events).where(eq(events.voicemailId, id)))
  const noteDeletion = prepare.change(read.insert(events).values({
    voicemailId: id, accountId: sql.placeholder('accountId'), kind: 'deleted', caller: sql.placeholder('caller'), address: sql.placeholder('address'), atMs: sql.placeholder('atMs')
  }))
  const listRemovals = read.select().from(removals).prepare()

  const insert = prepare.rows(voicemails, read.insert(voicemails).values({
    id,
    accountId: sql.placeholder('accountId'),
    sipFrom: sql.placeholder('sipFrom'),
    contentType: sql.placeholder('contentType'),
    maxUploadBytes: sql.placeholder('maxUploadBytes'),
    createdAtMs: sql.placeholder('createdAtMs'),
    expiresAtMs: sql.placeholder('expiresAtMs')
  }).returning())
  const store = prepare.rows(voicemails, read.update(voicemails).set({
    uploadedAtMs: value('atMs'),
    fileName: value('fileName'),
    fileBytes: value('fileBytes'),
    durationMs: value('durationMs'),
    sha256: value('sha256'),
    ...noFailure
  }).where(and(hasId, isPending)).returning())
  const fail = prepare.change(read.update(voicemails).set({
    failureCode: value('failureCode'), failureDetail: value('failureDetail'), failureAtMs: value('failureAtMs')
  }).where(and(hasId, isPending)))
  const setRead = prepare.rows(voicemails, read.update(voicemails).set({
    readAtMs: sql`case when ${sql.placeholder('atMs')} is null then null else coalesce(${voicemails.readAtMs}, ${sql.placeholder('atMs')}) end`
  }).where(and(hasId, isStored)).returning())
  const drop = prepare.rows(voicemails, read.delete(voicemails).where(and(hasId, ofAccount)).returning())
  const noteRemoval = prepare.change(read.insert(removals).values({ fileName: sql.placeholder('fileName') }).onConflictDoNothing())
  const forgetRemoval = prepare.change(read.delete(removals).where(eq(removals.fileName, sql.placeholder('fileName'))))

  /** One prepared query for each of the few filters there are. */
  const pages = new Map<string, ReturnType<typeof preparePage>>()
  function preparePage ({ status, unread }: VoicemailFilter) {
    return prepare.rows(voicemails, read.select().from(voicemails).where(and(
      ofAccount,
      status === undefined ? undefined : status === 'pending' ? isPending : isStored,
      unread === undefined ? undefined : unread ? isUnread : and(isStored, isNotNull(voicemails.readAtMs)),
      lt(voicemails.id, sql.placeholder('before'))
    )).orderBy(desc(voicemails.id)).limit(sql.placeholder('limit')))
  }

  const openSlots = (nowMs: number): OpenSlots => without(allPending.get(), sumExpired.get({ nowMs }))

  return {
    addSlot: async (slot, judge) => await write(() => {
      const { accountId, createdAtMs: nowMs } = slot
      const account = accountById.get({ accountId })
      if (account === undefined) throw new AppError('not_found', 'There is no such account.')
      judge({ account, open: openSlots(nowMs), openOfAccount: without(account, sumExpiredOfAccount.get({ accountId, nowMs })) })
      return insert.get(slot) ?? noRow()
    }),
    find: async id => byId.get({ id }),
    findOf: async (accountId, id) => byAccountAndId.get({ accountId, id }),
    list: async (accountId, filter, { before = LAST_ID, limit }) => {
      const name = `${filter.status ?? ''} ${filter.unread ?? ''}`
      const page = pages.get(name) ?? preparePage(filter)
      pages.set(name, page)
      const account = accountById.get({ accountId })
      return {
        voicemails: page.all({ accountId, before, limit }),
        total: account === undefined ? 0 : countMatches(account, filter),
        unread: account?.unreadMessages ?? 0
      }
    },
    markStored: async (id, audio, atMs) => await write(() => store.get({ id, ...audio, atMs })),
    noteFailure: async (id, failure) => { await write(() => fail({ id, ...failure })) },
    markRead: async (id, atMs) => await write(() => setRead.get({ id, atMs })),
    remove: async (accountId, id, deletion) => await write(() => {
      const row = drop.get({ accountId, id })
      if (row === undefined) return undefined
      if (row.fileName !== null) noteRemoval({ fileName: row.fileName })
      forgetEvents({ id })
      noteDeletion({ id, accountId, ...deletion })
      return row
    }),
    openSlots: async nowMs => openSlots(nowMs),
    isFileKnown: async fileName => knowsFile.get({ fileName }) !== undefined,
    pendingRemovals: async () => listRemovals.all().map(({ fileName }) => fileName),
    forgetRemovals: async fileNames => { await write(() => { for (const fileName of fileNames) forgetRemoval({ fileName }) }) }
  }
}

/** An INSERT without a conflict clause returns its row, or throws. */
function noRow (): never {
  throw new Error('An INSERT returned no row.')
}

type Pending = Pick<AccountRow, 'pendingMessages' | 'pendingBytes'>
const NONE: Pending = { pendingMessages: 0, pendingBytes: 0 }

/** Slots that wait for their upload, without those whose time is over and that only have not been swept yet: they are few. */
function without (all: Pending = NONE, expired: Pending = NONE): OpenSlots {
  return { count: all.pendingMessages - expired.pendingMessages, bytes: all.pendingBytes - expired.pendingBytes }
}

/** How many voicemails of an account there are of which the filter is true. */
function countMatches ({ storedMessages, unreadMessages, pendingMessages }: AccountRow, { status, unread }: VoicemailFilter): number {
  if (unread === undefined) return (status === 'pending' ? 0 : storedMessages) + (status === 'stored' ? 0 : pendingMessages)
  if (status === 'pending') return 0
  return unread ? unreadMessages : storedMessages - unreadMessages
}

/** Sorts after every UUID. */
const LAST_ID = 'g'

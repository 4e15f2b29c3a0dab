import { and, count, desc, eq, gt, isNotNull, isNull, lt, sql, type SQL } from 'drizzle-orm'
import { AppError } from '../errors.js'
import type { Database } from './database.js'
import { accounts, events, removals, voicemails, type AccountRow, type EventRow, type VoicemailRow } from './tables.js'

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

export function createVoicemailStore ({ read, write }: Database): VoicemailStore {
  const id = sql.placeholder('id')
  const hasId = eq(voicemails.id, id)
  const ofAccount = eq(voicemails.accountId, sql.placeholder('accountId'))
  const noFailure = { failureCode: null, failureDetail: null, failureAtMs: null }
  const value = (name: string): SQL => sql`${sql.placeholder(name)}`

  const byId = read.select().from(voicemails).where(hasId).prepare()
  const byAccountAndId = read.select().from(voicemails).where(and(hasId, ofAccount)).prepare()
  const countUnread = read.select({ n: count() }).from(voicemails).where(and(ofAccount, isUnread)).prepare()
  const knowsFile = read.select({ id: voicemails.id }).from(voicemails).where(eq(voicemails.fileName, sql.placeholder('fileName'))).prepare()
  const isOpen = and(isPending, gt(voicemails.expiresAtMs, sql.placeholder('nowMs')))
  const sumOf = (slots: SQL | undefined) =>
    read.select({ count: count(), bytes: sql<number>`coalesce(sum(${voicemails.maxUploadBytes}), 0)` }).from(voicemails).where(slots).prepare()
  const sumOpen = sumOf(isOpen)
  const sumOpenOfAccount = sumOf(and(ofAccount, isOpen))
  const accountById = read.select().from(accounts).where(eq(accounts.id, sql.placeholder('accountId'))).prepare()
  const forgetEvents = read.delete(events).where(eq(events.voicemailId, id)).prepare()
  const noteDeletion = read.insert(events).values({
    voicemailId: id, accountId: sql.placeholder('accountId'), kind: 'deleted', caller: sql.placeholder('caller'), address: sql.placeholder('address'), atMs: sql.placeholder('atMs')
  }).prepare()
  const listRemovals = read.select().from(removals).prepare()

  const insert = read.insert(voicemails).values({
    id,
    accountId: sql.placeholder('accountId'),
    sipFrom: sql.placeholder('sipFrom'),
    contentType: sql.placeholder('contentType'),
    maxUploadBytes: sql.placeholder('maxUploadBytes'),
    createdAtMs: sql.placeholder('createdAtMs'),
    expiresAtMs: sql.placeholder('expiresAtMs')
  }).returning().prepare()
  const store = read.update(voicemails).set({
    uploadedAtMs: value('atMs'),
    fileName: value('fileName'),
    fileBytes: value('fileBytes'),
    durationMs: value('durationMs'),
    sha256: value('sha256'),
    ...noFailure
  }).where(and(hasId, isPending)).returning().prepare()
  const fail = read.update(voicemails).set({
    failureCode: value('failureCode'), failureDetail: value('failureDetail'), failureAtMs: value('failureAtMs')
  }).where(and(hasId, isPending)).prepare()
  const setRead = read.update(voicemails).set({
    readAtMs: sql`case when ${sql.placeholder('atMs')} is null then null else coalesce(${voicemails.readAtMs}, ${sql.placeholder('atMs')}) end`
  }).where(and(hasId, isStored)).returning().prepare()
  const drop = read.delete(voicemails).where(and(hasId, ofAccount)).returning().prepare()
  const noteRemoval = read.insert(removals).values({ fileName: sql.placeholder('fileName') }).onConflictDoNothing().prepare()
  const forgetRemoval = read.delete(removals).where(eq(removals.fileName, sql.placeholder('fileName'))).prepare()

  /** One prepared pair of queries for each of the few filters there are. */
  const lists = new Map<string, ReturnType<typeof prepareList>>()
  function prepareList ({ status, unread }: VoicemailFilter) {
    const matches = and(
      ofAccount,
      status === undefined ? undefined : status === 'pending' ? isPending : isStored,
      unread === undefined ? undefined : unread ? isUnread : and(isStored, isNotNull(voicemails.readAtMs))
    )
    return {
      page: read.select().from(voicemails).where(and(matches, lt(voicemails.id, sql.placeholder('before'))))
        .orderBy(desc(voicemails.id)).limit(sql.placeholder('limit')).prepare(),
      total: read.select({ n: count() }).from(voicemails).where(matches).prepare()
    }
  }

  return {
    addSlot: async (slot, judge) => await write(() => {
      const { accountId, createdAtMs: nowMs } = slot
      const account = accountById.get({ accountId })
      if (account === undefined) throw new AppError('not_found', 'There is no such account.')
      judge({ account, open: sumOpen.get({ nowMs }) ?? NO_SLOTS, openOfAccount: sumOpenOfAccount.get({ accountId, nowMs }) ?? NO_SLOTS })
      return insert.get(slot)
    }),
    find: async id => byId.get({ id }),
    findOf: async (accountId, id) => byAccountAndId.get({ accountId, id }),
    list: async (accountId, filter, { before = LAST_ID, limit }) => {
      const name = `${filter.status ?? ''} ${filter.unread ?? ''}`
      const list = lists.get(name) ?? prepareList(filter)
      lists.set(name, list)
      return {
        voicemails: list.page.all({ accountId, before, limit }),
        total: list.total.get({ accountId })?.n ?? 0,
        unread: countUnread.get({ accountId })?.n ?? 0
      }
    },
    markStored: async (id, audio, atMs) => await write(() => store.get({ id, ...audio, atMs })),
    noteFailure: async (id, failure) => { await write(() => fail.run({ id, ...failure })) },
    markRead: async (id, atMs) => await write(() => setRead.get({ id, atMs })),
    remove: async (accountId, id, deletion) => await write(() => {
      const row = drop.get({ accountId, id })
      if (row === undefined) return undefined
      if (row.fileName !== null) noteRemoval.run({ fileName: row.fileName })
      forgetEvents.run({ id })
      noteDeletion.run({ id, accountId, ...deletion })
      return row
    }),
    openSlots: async nowMs => sumOpen.get({ nowMs }) ?? NO_SLOTS,
    isFileKnown: async fileName => knowsFile.get({ fileName }) !== undefined,
    pendingRemovals: async () => listRemovals.all().map(({ fileName }) => fileName),
    forgetRemovals: async fileNames => { await write(() => { for (const fileName of fileNames) forgetRemoval.run({ fileName }) }) }
  }
}

const NO_SLOTS: OpenSlots = { count: 0, bytes: 0 }

/** Sorts after every UUID. */
const LAST_ID = 'g'

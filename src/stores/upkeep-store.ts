import { and, asc, eq, gte, inArray, isNotNull, isNull, lt, sql } from 'drizzle-orm'
import { shardOf } from './audio-layout.js'
import type { Database } from './database.js'
import { removals, voicemails, type VoicemailRow } from './tables.js'

/** What a row says of its file. */
export type KnownFile = { fileName: string } & Pick<VoicemailRow, 'id' | 'accountId' | 'fileBytes' | 'sha256' | 'failureCode' | 'uploadedAtMs'>

/** A voicemail that is due to go. */
export type Due = Pick<VoicemailRow, 'id' | 'accountId'>

/** Rows as those see them who look after the whole: `check`, `backup` and the sweeper. */
export interface UpkeepStore {
  /** What rows say of the files of a shard. */
  filesIn: (prefix: string) => Promise<KnownFile[]>
  /** The shards that rows speak of. */
  shards: () => Promise<string[]>
  findFile: (fileName: string) => Promise<KnownFile | undefined>
  isAwaitingRemoval: (fileName: string) => Promise<boolean>
  /** Marks a voicemail whose audio is gone. */
  markLost: (id: string, detail: string, atMs: number) => Promise<void>
  countFiles: () => Promise<number>

  /** Slots that expired before that moment. */
  expiredSlots: (beforeMs: number, limit: number) => Promise<Due[]>
  /** Voicemails uploaded before that moment. */
  storedBefore: (beforeMs: number, limit: number) => Promise<Due[]>
  /** Voicemails read before that moment. */
  readBefore: (beforeMs: number, limit: number) => Promise<Due[]>
  /** Takes slots away that were never filled; one that was filled meanwhile stays. Returns how many went. */
  removeSlots: (ids: string[]) => Promise<number>
}

export function createUpkeepStore ({ read, write }: Database): UpkeepStore {
  const columns = {
    id: voicemails.id,
    accountId: voicemails.accountId,
    fileName: sql<string>`${voicemails.fileName}`,
    fileBytes: voicemails.fileBytes,
    sha256: voicemails.sha256,
    failureCode: voicemails.failureCode,
    uploadedAtMs: voicemails.uploadedAtMs
  }
  const due = { id: voicemails.id, accountId: voicemails.accountId }
  const beforeMs = sql.placeholder('beforeMs')
  const limit = sql.placeholder('limit')
  const isPending = isNull(voicemails.uploadedAtMs)
  const inRange = read.select(columns).from(voicemails)
    .where(and(gte(voicemails.fileName, sql.placeholder('from')), lt(voicemails.fileName, sql.placeholder('to')))).prepare()
  const byFile = read.select(columns).from(voicemails).where(eq(voicemails.fileName, sql.placeholder('fileName'))).prepare()
  // From shard to shard by the index: a distinct over a million rows would hold the server up just after its start.
  const shards = sql`with recursive shards (shard) as (
    select substr(min(file_name), 1, 2) from voicemails
    union select (select substr(min(file_name), 1, 2) from voicemails where file_name >= shard || '~') from shards where shard is not null
  ) select shard from shards where shard is not null`
  const removalOf = read.select().from(removals).where(eq(removals.fileName, sql.placeholder('fileName'))).prepare()
  const expired = read.select(due).from(voicemails).where(and(isPending, lt(voicemails.expiresAtMs, beforeMs)))
    .orderBy(asc(voicemails.expiresAtMs)).limit(limit).prepare()
  const old = read.select(due).from(voicemails).where(and(isNotNull(voicemails.uploadedAtMs), lt(voicemails.uploadedAtMs, beforeMs))).limit(limit).prepare()
  const oldRead = read.select(due).from(voicemails).where(and(isNotNull(voicemails.readAtMs), lt(voicemails.readAtMs, beforeMs))).limit(limit).prepare()

  return {
    // A folder with a shorter name is nobody's shard, though names of other shards begin with it.
    filesIn: async shard => inRange.all({ from: shard, to: `${shard}~` }).filter(({ fileName }) => shardOf(fileName) === shard),
    shards: async () => read.all<{ shard: string }>(shards).map(({ shard }) => shard),
    findFile: async fileName => byFile.get({ fileName }),
    isAwaitingRemoval: async fileName => removalOf.get({ fileName }) !== undefined,
    markLost: async (id, detail, atMs) => {
      await write(() => {
        read.update(voicemails).set({ failureCode: 'audio_lost', failureDetail: detail, failureAtMs: atMs }).where(eq(voicemails.id, id)).run()
      })
    },
    countFiles: async () => read.$count(voicemails, isNotNull(voicemails.fileName)),
    expiredSlots: async (beforeMs, limit) => expired.all({ beforeMs, limit }),
    storedBefore: async (beforeMs, limit) => old.all({ beforeMs, limit }),
    readBefore: async (beforeMs, limit) => oldRead.all({ beforeMs, limit }),
    removeSlots: async ids => await write(() => read.delete(voicemails).where(and(inArray(voicemails.id, ids), isPending)).run().changes)
  }
}

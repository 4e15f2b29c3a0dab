import { and, asc, desc, eq, gt, isNotNull, isNull, lt, or, sql } from 'drizzle-orm'
import type { Database } from './database.js'
import { accounts, apiKeys, events, removals, voicemails, type AccountRow, type ApiKeyRow } from './tables.js'

export type NewAccount = typeof accounts.$inferInsert
export type NewApiKey = typeof apiKeys.$inferInsert

/** Accounts and the keys that open them. */
export interface AccountStore {
  /** Undefined where the address has an account already. */
  add: (account: NewAccount) => Promise<AccountRow | undefined>
  find: (id: number) => Promise<AccountRow | undefined>
  findByAddressKey: (addressKey: string) => Promise<AccountRow | undefined>
  /** Newest first, those with an id below `before`. */
  list: (page: { before: number, limit: number }) => Promise<AccountRow[]>
  count: () => Promise<number>
  /** Undefined where there is no such account. */
  setQuota: (id: number, quota: { [K in 'quotaBytes' | 'quotaMessages']?: number | null | undefined }) => Promise<AccountRow | undefined>
  /** Takes the account, its keys and its voicemails away; returns the names of the files that have to go, or undefined where there was none. */
  remove: (id: number) => Promise<string[] | undefined>

  /** Undefined where the key's account is gone. */
  addKey: (key: NewApiKey) => Promise<ApiKeyRow | undefined>
  /** The keys of one account, or all where it is undefined, oldest first. */
  listKeys: (accountId: number | undefined) => Promise<ApiKeyRow[]>
  /** A key that is not expired at `nowMs`. */
  findKey: (sha256: string, nowMs: number) => Promise<ApiKeyRow | undefined>
  noteKeyUse: (id: number, atMs: number) => Promise<void>
  /** Whether there was such a key (of that account, where one is given). */
  removeKey: (id: number, accountId: number | undefined) => Promise<boolean>
}

export function createAccountStore ({ read, write, prepare }: Database): AccountStore {
  const id = sql.placeholder('id')
  const byId = prepare.rows(accounts, read.select().from(accounts).where(eq(accounts.id, id)))
  const byKey = prepare.rows(accounts, read.select().from(accounts).where(eq(accounts.addressKey, sql.placeholder('addressKey'))))
  const page = read.select().from(accounts).where(lt(accounts.id, sql.placeholder('before')))
    .orderBy(desc(accounts.id)).limit(sql.placeholder('limit')).prepare()
  const keyBySha256 = prepare.rows(apiKeys, read.select().from(apiKeys).where(and(
    eq(apiKeys.sha256, sql.placeholder('sha256')),
    or(isNull(apiKeys.expiresAtMs), gt(apiKeys.expiresAtMs, sql.placeholder('nowMs')))
  )))
  const useKey = read.update(apiKeys).set({ lastUsedAtMs: sql`${sql.placeholder('atMs')}` }).where(eq(apiKeys.id, id)).prepare()

  return {
    add: async account => await write(() => read.insert(accounts).values(account).onConflictDoNothing().returning().all().at(0)),
    find: async id => byId.get({ id }),
    findByAddressKey: async addressKey => byKey.get({ addressKey }),
    list: async ({ before, limit }) => page.all({ before, limit }),
    count: async () => read.$count(accounts),
    setQuota: async (id, quota) => await write(() => read.update(accounts).set(quota).where(eq(accounts.id, id)).returning().all().at(0)),
    remove: async id => await write(() => {
      const files = read.select({ fileName: voicemails.fileName }).from(voicemails)
        .where(and(eq(voicemails.accountId, id), isNotNull(voicemails.fileName))).all()
        .flatMap(({ fileName }) => fileName ?? [])
      for (const fileName of files) read.insert(removals).values({ fileName }).run()
      read.delete(voicemails).where(eq(voicemails.accountId, id)).run()
      read.delete(events).where(eq(events.accountId, id)).run()
      return read.delete(accounts).where(eq(accounts.id, id)).run().changes === 0 ? undefined : files
    }),

    addKey: async key => await write(() => key.accountId != null && byId.get({ id: key.accountId }) === undefined
      ? undefined
      : read.insert(apiKeys).values(key).returning().get()),
    listKeys: async accountId => read.select().from(apiKeys)
      .where(accountId === undefined ? undefined : eq(apiKeys.accountId, accountId)).orderBy(asc(apiKeys.id)).all(),
    findKey: async (sha256, nowMs) => keyBySha256.get({ sha256, nowMs }),
    noteKeyUse: async (id, atMs) => { await write(() => useKey.run({ id, atMs })) },
    removeKey: async (id, accountId) => await write(() => read.delete(apiKeys).where(and(
      eq(apiKeys.id, id), accountId === undefined ? undefined : eq(apiKeys.accountId, accountId)
    )).run().changes > 0)
  }
}

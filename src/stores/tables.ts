import { sql } from 'drizzle-orm'
import { index, integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { AUDIO_TYPES } from '../domain/media-type.js'
import { EVENT_KINDS } from '../domain/event-kind.js'
import { ERROR_CODES } from '../errors.js'

export const ROLES = ['admin', 'user'] as const

/** Who owns voicemails: one SIP address of record. */
export const accounts = sqliteTable('accounts', {
  id: integer().primaryKey({ autoIncrement: true }),
  sipUri: text('sip_uri').notNull(),
  /** What two spellings of the same address have in common (RFC 3261 section 19.1.4). */
  addressKey: text('address_key').notNull().unique(),
  username: text().notNull(),
  domain: text().notNull(),
  email: text(),
  displayName: text('display_name'),
  createdAtMs: integer('created_at_ms').notNull(),
  /** Of this account alone; null for what the settings say, 0 for no limit. */
  quotaBytes: integer('quota_bytes'),
  quotaMessages: integer('quota_messages'),
  /** What is stored, and what slots that wait for their upload may bring: kept by triggers (in drizzle/), so that a full mailbox costs what an empty one does. */
  storedBytes: integer('stored_bytes').notNull().default(0),
  storedMessages: integer('stored_messages').notNull().default(0),
  unreadMessages: integer('unread_messages').notNull().default(0),
  pendingBytes: integer('pending_bytes').notNull().default(0),
  pendingMessages: integer('pending_messages').notNull().default(0),
  /** Another number after every change to a voicemail of this account: what was made from its rows is good as long as this is the same. */
  revision: integer().notNull().default(0)
})

/** One row: what slots of all accounts may bring that wait for their upload, kept by the same triggers. */
export const totals = sqliteTable('totals', {
  id: integer().primaryKey(),
  pendingBytes: integer('pending_bytes').notNull().default(0),
  pendingMessages: integer('pending_messages').notNull().default(0)
})

/** API keys; the key itself is never kept, only its SHA-256 in hexadecimal. */
export const apiKeys = sqliteTable('api_keys', {
  id: integer().primaryKey({ autoIncrement: true }),
  accountId: integer('account_id').references(() => accounts.id, { onDelete: 'cascade' }),
  name: text().notNull(),
  role: text({ enum: ROLES }).notNull(),
  sha256: text().notNull().unique(),
  createdAtMs: integer('created_at_ms').notNull(),
  expiresAtMs: integer('expires_at_ms'),
  lastUsedAtMs: integer('last_used_at_ms')
}, table => [index('api_keys_by_account').on(table.accountId)])

/** A voicemail, from the moment its slot is opened. What an upload tells is null until then. */
export const voicemails = sqliteTable('voicemails', {
  /** UUID version 7: sorts by time. */
  id: text().primaryKey(),
  accountId: integer('account_id').notNull().references(() => accounts.id),
  sipFrom: text('sip_from').notNull(),
  contentType: text('content_type', { enum: AUDIO_TYPES }).notNull(),
  maxUploadBytes: integer('max_upload_bytes').notNull(),
  createdAtMs: integer('created_at_ms').notNull(),
  /** When the upload URL ends, on a whole second. */
  expiresAtMs: integer('expires_at_ms').notNull(),
  uploadedAtMs: integer('uploaded_at_ms'),
  readAtMs: integer('read_at_ms'),
  fileName: text('file_name').unique(),
  fileBytes: integer('file_bytes'),
  durationMs: integer('duration_ms'),
  /** SHA-256 of the whole file, in hexadecimal. */
  sha256: text(),
  failureCode: text('failure_code', { enum: ERROR_CODES }),
  failureDetail: text('failure_detail'),
  failureAtMs: integer('failure_at_ms')
}, table => [
  index('voicemails_by_account').on(table.accountId, table.id),
  index('voicemails_unread').on(table.accountId, table.id).where(sql`uploaded_at_ms is not null and read_at_ms is null`),
  index('voicemails_read').on(table.accountId, table.id).where(sql`uploaded_at_ms is not null and read_at_ms is not null`),
  index('voicemails_pending').on(table.accountId, table.id).where(sql`uploaded_at_ms is null`),
  index('voicemails_expiring').on(table.expiresAtMs).where(sql`uploaded_at_ms is null`),
  index('voicemails_by_age').on(table.uploadedAtMs).where(sql`uploaded_at_ms is not null`),
  index('voicemails_by_reading').on(table.readAtMs).where(sql`read_at_ms is not null`)
])

/** The record of access. An event goes with its voicemail, but for its deletion, which is kept for a while. */
export const events = sqliteTable('events', {
  id: integer().primaryKey({ autoIncrement: true }),
  voicemailId: text('voicemail_id').notNull(),
  accountId: integer('account_id').notNull(),
  kind: text({ enum: EVENT_KINDS }).notNull(),
  /** Who: `admin`, `key 5`, `token of ...`, `signed_url`, `retention`, `command line`. */
  caller: text().notNull(),
  /** From where; null for what this machine did by itself. */
  address: text(),
  atMs: integer('at_ms').notNull()
}, table => [
  index('events_by_voicemail').on(table.voicemailId, table.id),
  index('events_of_deletions').on(table.atMs).where(sql`kind = 'deleted'`)
])

/** Files whose row is gone, and that have still to go from the disk. */
export const removals = sqliteTable('removals', {
  fileName: text('file_name').primaryKey()
})

export type AccountRow = typeof accounts.$inferSelect
export type ApiKeyRow = typeof apiKeys.$inferSelect
export type VoicemailRow = typeof voicemails.$inferSelect
export type EventRow = typeof events.$inferSelect
export type Role = typeof ROLES[number]

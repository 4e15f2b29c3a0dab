import { isoSeconds } from '../domain/clock.js'
import { isStored } from '../domain/stored-voicemail.js'
import type { Account, ApiKey, Event, Voicemail } from '../domain/rows.js'
import type { SignedUrls } from '../domain/signed-url.js'
import type { AccountJson, ApiKeyJson, QuotaJson } from '../schemas/account.js'
import type { AccessEventJson, SlotJson, VoicemailJson } from '../schemas/voicemail.js'

/** Turns rows into the JSON of the contract. */
export interface Json {
  slot: (row: Voicemail) => SlotJson
  voicemail: (row: Voicemail) => VoicemailJson
}

export interface JsonOptions {
  signedUrls: Pick<SignedUrls, 'sign'>
  downloadUrlTtlMs: number
  clock: () => number
  /** What signed URLs begin with. */
  publicUrl: () => string
}

export function createJson ({ signedUrls, downloadUrlTtlMs, clock, publicUrl }: JsonOptions): Json {
  return {
    slot: row => ({
      id: row.id,
      sip_from: row.sipFrom,
      upload_url: publicUrl() + signedUrls.sign({ direction: 'upload', voicemailId: row.id, expiresAtMs: row.expiresAtMs }),
      download_url: null,
      max_upload_size: row.maxUploadBytes,
      content_type: row.contentType,
      created_at: isoSeconds(row.createdAtMs),
      uploaded_at: null,
      status: 'pending',
      expires_at: isoSeconds(row.expiresAtMs)
    }),
    voicemail: row => {
      const url = isStored(row)
        ? publicUrl() + signedUrls.sign({ direction: 'download', voicemailId: row.id, expiresAtMs: clock() + downloadUrlTtlMs })
        : null
      return {
        id: row.id,
        sip_from: row.sipFrom,
        get_url: url,
        file_size: row.fileBytes,
        content_type: row.contentType,
        created_at: isoSeconds(row.createdAtMs),
        uploaded_at: orNull(row.uploadedAtMs),
        download_url: url,
        duration: row.durationMs === null ? null : row.durationMs / 1000,
        status: isStored(row) ? 'stored' : 'pending',
        read_at: orNull(row.readAtMs),
        sha256: row.sha256,
        failure: row.failureCode === null
          ? null
          : { code: row.failureCode, detail: row.failureDetail ?? '', at: isoSeconds(row.failureAtMs ?? 0) }
      }
    }
  }
}

export function accountJson (row: Account): AccountJson {
  return {
    id: row.id,
    sip_uri: row.sipUri,
    username: row.username,
    domain: row.domain,
    email: row.email,
    display_name: row.displayName,
    created_at: isoSeconds(row.createdAtMs),
    call_forwardings: [],
    voicemails: { total: row.storedMessages, unread: row.unreadMessages }
  }
}

export function apiKeyJson (row: ApiKey): ApiKeyJson {
  return {
    id: row.id,
    name: row.name,
    role: row.role,
    created_at: isoSeconds(row.createdAtMs),
    expires_at: orNull(row.expiresAtMs),
    last_used_at: orNull(row.lastUsedAtMs)
  }
}

export function eventJson ({ kind, atMs, caller, address }: Event): AccessEventJson {
  return { kind, at: isoSeconds(atMs), caller, address }
}

/** What is set for this account alone; null goes by the settings, 0 is no limit. */
export function quotaJson ({ quotaBytes, quotaMessages, storedBytes, storedMessages }: Account): QuotaJson {
  return { quota_bytes: quotaBytes, quota_messages: quotaMessages, stored_bytes: storedBytes, stored_messages: storedMessages }
}

function orNull (ms: number | null): string | null {
  return ms === null ? null : isoSeconds(ms)
}

import { AppError } from '../errors.js'
import type { Usage } from '../stores/voicemail-store.js'

/** What a new slot is measured against; 0 is no limit. */
export interface SlotLimits {
  maxUploadBytes: number
  minFreeDiskBytes: number
  accountQuotaBytes: number
  accountQuotaMessages: number
  accountOpenSlots: number
}

/**
 * Whether another slot may be opened: refused before anyone speaks, not after. Open slots count with all that they may still bring.
 * Throws `insufficient_storage`, `quota_exceeded`.
 */
export function judgeSlot (limits: SlotLimits, freeBytes: number, { account, openOfAccount, open }: Usage): void {
  requireFreeDisk(limits, freeBytes - limits.maxUploadBytes, open.bytes)
  requireQuota('bytes', account.quotaBytes ?? limits.accountQuotaBytes, account.storedBytes + openOfAccount.bytes + limits.maxUploadBytes)
  requireQuota('messages', account.quotaMessages ?? limits.accountQuotaMessages, account.storedMessages + openOfAccount.count + 1)
  requireQuota('open slots', limits.accountOpenSlots, openOfAccount.count + 1)
}

/** Throws where fewer bytes are free than the floor, after what open slots may still need. */
export function requireFreeDisk ({ minFreeDiskBytes }: Pick<SlotLimits, 'minFreeDiskBytes'>, freeBytes: number, reservedBytes: number): void {
  if (freeBytes - reservedBytes >= minFreeDiskBytes) return
  throw new AppError('insufficient_storage', 'The disk has too little room for another voicemail.', { headers: { 'retry-after': '300' } })
}

function requireQuota (unit: string, limit: number, wanted: number): void {
  if (limit === 0 || wanted <= limit) return
  throw new AppError('quota_exceeded', `The account would hold more than its ${limit} ${unit}.`, {
    expected: limit, found: wanted, headers: { 'retry-after': '3600' }
  })
}

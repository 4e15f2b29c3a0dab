import type { AccountStore } from '../stores/account-store.js'
import type { Role } from '../stores/tables.js'
import { AppError } from '../errors.js'
import type { Clock } from './clock.js'
import { matchesSha256, sha256Hex } from './secrets.js'
import { addressKey, parseSipAddress } from './sip-address.js'
import { parseId, unknownAccount } from './accounts.js'
import type { Account } from './rows.js'

/** Who is calling: what they may do, the account that `me` stands for, if there is one, and the name for the record of access. */
export interface Caller { role: Role, accountId: number | null, name: string }

export interface Callers {
  /** Undefined for a key that opens nothing. */
  byApiKey: (key: string) => Promise<Caller | undefined>
  /** The caller that the claims of a verified token name. Throws `forbidden` for nobody known. */
  byClaims: (claims: Readonly<Record<string, unknown>>) => Promise<Caller>
  /**
   * The account that `{id|me}` in a path means to this caller. Throws `forbidden` where a user asks for any other than its own, and
   * for `me` without an account; `not_found` where an admin asks for one that does not exist.
   */
  accountFor: (caller: Caller, id: string) => Promise<Account>
}

export interface CallersOptions {
  accountStore: AccountStore
  clock: Clock
  /** SHA-256, in hexadecimal, of the admin key of the installation. */
  adminKeySha256: string
  sipClaim: string
  adminClaim: string
}

/** A key's last use is kept to the minute, so that a busy recorder does not write a row with each request. */
const LAST_USE_STEP_MS = 60_000

export function createCallers ({ accountStore, clock, adminKeySha256, sipClaim, adminClaim }: CallersOptions): Callers {
  async function accountOfClaims (claims: Readonly<Record<string, unknown>>): Promise<number | null> {
    const address = claims[sipClaim]
    if (typeof address === 'string') {
      const parsed = parseSipAddress(address)
      return parsed === undefined ? null : (await accountStore.findByAddressKey(addressKey(parsed)))?.id ?? null
    }
    const id = parseId(String(claims['sub']))
    return id === undefined ? null : (await accountStore.find(id))?.id ?? null
  }

  return {
    byApiKey: async key => {
      if (matchesSha256(key, adminKeySha256)) return { role: 'admin', accountId: null, name: 'admin key' }
      const nowMs = clock()
      const row = await accountStore.findKey(sha256Hex(key), nowMs)
      if (row === undefined) return undefined
      if (nowMs - (row.lastUsedAtMs ?? 0) >= LAST_USE_STEP_MS) {
        // Who may call does not depend on whether the disk takes this note.
        void accountStore.noteKeyUse(row.id, nowMs).catch(() => {})
      }
      return { role: row.role, accountId: row.accountId, name: `key ${row.id}` }
    },
    byClaims: async claims => {
      const admin = claims[adminClaim]
      const isAdmin = admin === true || admin === 'admin' || (Array.isArray(admin) && admin.includes('admin'))
      const accountId = await accountOfClaims(claims)
      if (accountId === null && !isAdmin) throw new AppError('forbidden', 'This token is valid, but names nobody who is known here.')
      return { role: isAdmin ? 'admin' : 'user', accountId, name: accountId === null ? 'token of an admin' : `token of account ${accountId}` }
    },
    accountFor: async ({ role, accountId }, id) => {
      if (id === 'me' && accountId === null) throw new AppError('forbidden', 'This key belongs to no account, so that "me" is nobody.')
      const wanted = id === 'me' ? accountId : parseId(id)
      if (role === 'user' && (accountId === null || wanted !== accountId)) throw new AppError('forbidden', 'This account is not yours.')
      return (wanted == null ? undefined : await accountStore.find(wanted)) ?? unknownAccount()
    }
  }
}

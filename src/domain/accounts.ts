import { AppError } from '../errors.js'
import { nanoid } from 'nanoid'
import type { AccountStore } from '../stores/account-store.js'
import type { AudioStore } from '../stores/audio-store.js'
import type { AccountRow as Account, ApiKeyRow, Role } from '../stores/tables.js'
import type { VoicemailStore } from '../stores/voicemail-store.js'
import type { Clock } from './clock.js'
import { sha256Hex } from './secrets.js'
import { addressKey, parseSipAddress, type SipAddress } from './sip-address.js'
import { removeFiles } from './removed-files.js'

export interface NewAccountFacts { sipUri: string, email?: string | null | undefined, displayName?: string | null | undefined }
export interface NewKeyFacts { name: string, role?: Role | undefined, expiresAtMs?: number | undefined }

/** Who has voicemail here, and the keys that they call with. */
export interface Accounts {
  /** Throws `validation_failed`, `account_exists`. */
  add: (facts: NewAccountFacts) => Promise<Account>
  list: (page: { before?: number | undefined, limit: number }) => Promise<{ accounts: Account[], total: number }>
  /** Throws `not_found`. */
  show: (id: number) => Promise<Account>
  /** By `user@domain` or a SIP URI. Undefined for nobody, and for what is no address. */
  findByAddress: (address: string) => Promise<Account | undefined>
  /** What the account may hold, where it differs from the settings: null goes back to them, 0 is no limit. Throws `not_found`. */
  setQuota: (id: number, quota: { quotaBytes?: number | null | undefined, quotaMessages?: number | null | undefined }) => Promise<Account>
  /** Takes the account away with its keys, voicemails and files. Throws `not_found`. */
  remove: (id: number) => Promise<void>
  /** Makes a key; this is the only time that it is told. Throws `validation_failed`, `not_found` for an account that is not there. */
  addKey: (accountId: number | null, facts: NewKeyFacts) => Promise<ApiKeyRow & { key: string }>
  listKeys: (accountId?: number) => Promise<ApiKeyRow[]>
  /** Throws `not_found`. */
  removeKey: (keyId: number, accountId?: number) => Promise<void>
}

export interface AccountsDependencies { accountStore: AccountStore, voicemailStore: VoicemailStore, audioStore: AudioStore, clock: Clock }

export function createAccounts (deps: AccountsDependencies): Accounts {
  const { accountStore, clock } = deps
  return {
    add: async ({ sipUri, email, displayName }) => {
      const address = parseAddressOfRecord(sipUri)
      return await accountStore.add({
        sipUri: address.uri,
        addressKey: addressKey(address),
        username: address.user,
        domain: address.host,
        email: email ?? null,
        displayName: displayName ?? null,
        createdAtMs: clock()
      }) ?? accountExists()
    },
    list: async ({ before = Number.MAX_SAFE_INTEGER, limit }) => ({
      accounts: await accountStore.list({ before, limit }),
      total: await accountStore.count()
    }),
    show: async id => await accountStore.find(id) ?? unknownAccount(),
    findByAddress: async text => {
      const address = parseSipAddress(text)
      return address === undefined ? undefined : await accountStore.findByAddressKey(addressKey(address))
    },
    setQuota: async (id, quota) => {
      const isEmpty = Object.values(quota).every(value => value === undefined)
      return (isEmpty ? await accountStore.find(id) : await accountStore.setQuota(id, quota)) ?? unknownAccount()
    },
    remove: async id => {
      const fileNames = await accountStore.remove(id) ?? unknownAccount()
      await removeFiles(deps, fileNames)
    },
    addKey: async (accountId, { name, role = 'user', expiresAtMs }) => {
      // NaN is in no range: what Date.parse does not take must not become a key that never expires.
      if (expiresAtMs !== undefined && !(expiresAtMs >= 0 && expiresAtMs < YEAR_10000_MS)) throw invalid('expires_at', 'must be a moment between the years 1970 and 9999')
      const key = newApiKey()
      const row = await accountStore.addKey({
        accountId, name, role, sha256: sha256Hex(key), createdAtMs: clock(), expiresAtMs: expiresAtMs ?? null
      }) ?? unknownAccount()
      return { ...row, key }
    },
    listKeys: async accountId => await accountStore.listKeys(accountId),
    removeKey: async (keyId, accountId) => {
      if (!Number.isSafeInteger(keyId) || !await accountStore.removeKey(keyId, accountId)) return unknownKey()
    }
  }
}

/** ISO 8601 has four digits for the year. */
const YEAR_10000_MS = Date.UTC(10_000, 0)

/** The id of an account or a key as it stands in a path or a claim; undefined for whatever is no integer, and so belongs to nobody. */
export function parseId (text: string): number | undefined {
  return /^[1-9][0-9]{0,14}$/.test(text) ? Number(text) : undefined
}

/** A new API key: 40 characters of 6 bits, 240 in all, under a prefix that secret scanners can look for. */
export function newApiKey (): string {
  return `vm_${nanoid(40)}`
}

export function unknownAccount (): never {
  throw new AppError('not_found', 'There is no such account.')
}

export function unknownKey (): never {
  throw new AppError('not_found', 'There is no such key.')
}

function accountExists (): never {
  throw new AppError('account_exists', 'There is an account with this address already.')
}

function invalid (field: string, sentence: string): AppError {
  return new AppError('validation_failed', `${field} ${sentence}.`, { errors: { [field]: [sentence] } })
}

/** An account's address names a user at a host and nothing else: no password, no parameters, no headers. */
function parseAddressOfRecord (text: string): SipAddress & { user: string } {
  const address = parseSipAddress(text)
  const { user, uri = '', parameters, headers } = address ?? {}
  const hasPassword = uri.slice(uri.indexOf(':') + 1, uri.indexOf('@')) !== user
  if (address !== undefined && user !== undefined && !hasPassword && parameters === '' && headers === '') return { ...address, user }
  throw invalid('sip_uri', 'must be the SIP address of a user, such as sip:bob@sip.example.org, without password and parameters')
}

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
  /** Makes a key; this is the only time that it is told. Throws `not_found` for an account that is not there. */
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
      if (accountId !== null) await accountStore.find(accountId) ?? unknownAccount()
      const key = newApiKey()
      const row = await accountStore.addKey({
        accountId, name, role, sha256: sha256Hex(key), createdAtMs: clock(), expiresAtMs: expiresAtMs ?? null
      })
      return { ...row, key }
    },
    listKeys: async accountId => await accountStore.listKeys(accountId),
    removeKey: async (keyId, accountId) => {
      if (!Number.isSafeInteger(keyId) || !await accountStore.removeKey(keyId, accountId)) throw new AppError('not_found', 'There is no such key.')
    }
  }
}

/** A new API key: 40 characters of 6 bits, 240 in all, under a prefix that secret scanners can look for. */
export function newApiKey (): string {
  return `vm_${nanoid(40)}`
}

export function unknownAccount (): never {
  throw new AppError('not_found', 'There is no such account.')
}

function accountExists (): never {
  throw new AppError('account_exists', 'There is an account with this address already.')
}

/** An account's address names a user at a host and nothing else: no parameters, no headers. */
function parseAddressOfRecord (text: string): SipAddress & { user: string } {
  const address = parseSipAddress(text)
  if (address?.user !== undefined && address.parameters === '' && address.headers === '') return { ...address, user: address.user }
  const sentence = 'must be the SIP address of a user, such as sip:bob@sip.example.org, without parameters'
  throw new AppError('validation_failed', `sip_uri ${sentence}.`, { errors: { sip_uri: [sentence] } })
}

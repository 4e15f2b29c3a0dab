import { readFile } from 'node:fs/promises'
import { accountJson, quotaJson } from '../routes/json.js'
import { unknownAccount, type Accounts } from '../domain/accounts.js'
import type { Account } from '../domain/rows.js'
import { NewAccount } from '../schemas/account.js'
import { importAccounts } from './account-import.js'
import { CommandError, table, type Output } from './output.js'
import { requireShape } from './shape.js'

interface Options { json?: boolean }

const COLUMNS = ['id', 'sip_uri', 'email', 'display_name', 'voicemails', 'unread', 'created_at'] as const
const PAGE = 500

export async function addAccount (accounts: Accounts, { print }: Output, sipUri: string, options: Options & { email?: string, displayName?: string }): Promise<void> {
  const { email, displayName } = options
  requireShape(NewAccount)({ sip_uri: sipUri, ...email !== undefined && { email }, ...displayName !== undefined && { display_name: displayName } })
  const account = await accounts.add({ sipUri, email, displayName })
  print(show([account], options))
}

export async function listAccounts (accounts: Accounts, { print }: Output, { json }: Options): Promise<void> {
  const all: Account[] = []
  for (let before: number | undefined; ;) {
    const page = (await accounts.list({ before, limit: PAGE })).accounts
    all.push(...page)
    before = page.at(-1)?.id
    if (page.length < PAGE) break
  }
  print(json === true ? JSON.stringify(all.map(accountJson), null, 2) : toTable(all))
}

export async function showAccount (accounts: Accounts, { print }: Output, idOrAddress: string, options: Options): Promise<void> {
  print(show([await findAccount(accounts, idOrAddress)], options))
}

export async function removeAccount (accounts: Accounts, { print }: Output, idOrAddress: string, { json }: Options): Promise<void> {
  const { id, sipUri, storedMessages } = await findAccount(accounts, idOrAddress)
  await accounts.remove(id)
  print(json === true ? JSON.stringify({ id, deleted: true }) : `Removed account ${id} (${sipUri}) with ${storedMessages} voicemails.`)
}

/** A quota as it is said on a command line. */
export type Limit = number | 'default'

const toQuota = (limit: Limit | undefined): number | null | undefined => limit === 'default' ? null : limit

/** Shows what an account may hold, after changing it where it is said how. */
export async function accountQuota (
  accounts: Accounts, { print }: Output, idOrAddress: string, { json, bytes, messages }: Options & { bytes?: Limit, messages?: Limit }
): Promise<void> {
  const { id } = await findAccount(accounts, idOrAddress)
  const quota = quotaJson(await accounts.setQuota(id, { quotaBytes: toQuota(bytes), quotaMessages: toQuota(messages) }))
  const limit = (value: number | null): string => value === null ? 'default' : value === 0 ? 'no limit' : String(value)
  print(json === true
    ? JSON.stringify(quota, null, 2)
    : table(['', 'stored', 'quota'], [['bytes', quota.stored_bytes, limit(quota.quota_bytes)], ['messages', quota.stored_messages, limit(quota.quota_messages)]]))
}

/** Returns whether every line was taken. */
export async function importAccountFile (accounts: Accounts, { print }: Output, file: string, { json }: Options): Promise<boolean> {
  const bytes = await readFile(file).catch(() => { throw new CommandError(`${file}: cannot be read.`) })
  const { added, known, refused } = await importAccounts(accounts, decode(bytes, file))
  if (json === true) {
    print(JSON.stringify({ added, known, refused }, null, 2))
  } else {
    for (const { line, reason } of refused) print(`${file}:${line}: refused: ${reason}`)
    print(`${added} added, ${known} known, ${refused.length} refused`)
  }
  return refused.length === 0
}

/** Latin-1 read as UTF-8 would put signs of replacement into names. */
function decode (bytes: Buffer, file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new CommandError(`${file}: expected text in UTF-8.`)
  }
}

/** By id, `user@domain` or SIP URI. */
export async function findAccount (accounts: Accounts, idOrAddress: string): Promise<Account> {
  if (/^[0-9]{1,15}$/.test(idOrAddress)) return await accounts.show(Number(idOrAddress))
  return await accounts.findByAddress(idOrAddress) ?? unknownAccount()
}

function show (accounts: [Account], { json }: Options): string {
  return json === true ? JSON.stringify(accountJson(accounts[0]), null, 2) : toTable(accounts)
}

function toTable (accounts: Account[]): string {
  return table(COLUMNS, accounts.map(accountJson).map(account =>
    [account.id, account.sip_uri, account.email, account.display_name, account.voicemails.total, account.voicemails.unread, account.created_at]))
}

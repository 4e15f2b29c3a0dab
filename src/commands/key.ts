import { apiKeyJson } from '../routes/json.js'
import type { Accounts } from '../domain/accounts.js'
import { NewApiKey } from '../schemas/account.js'
import { findAccount } from './account.js'
import { table, UsageError, type Output } from './output.js'
import { requireShape } from './shape.js'

interface Options { json?: boolean }

const COLUMNS = ['id', 'account', 'name', 'role', 'created_at', 'expires_at', 'last_used_at'] as const

export interface NewKeyOptions extends Options { account?: string, role: 'admin' | 'user', name: string, expires?: string }

/** Throws UsageError for options that do not fit together; looked at before a data folder is opened. */
export function checkNewKey ({ account, role, expires }: NewKeyOptions): void {
  if (role === 'user' && account === undefined) throw new UsageError('--account: a key with the role user needs one.')
  if (expires !== undefined && parseDate(expires) === undefined) {
    throw new UsageError(`--expires: expected a date in UTC such as 2027-01-31 or 2027-01-31T18:00:00Z, found ${JSON.stringify(expires)}.`)
  }
}

export async function addKey (accounts: Accounts, { print, tell }: Output, options: NewKeyOptions): Promise<void> {
  requireShape(NewApiKey)({ name: options.name })
  const expiresAtMs = options.expires === undefined ? undefined : parseDate(options.expires)
  const accountId = options.account === undefined ? null : (await findAccount(accounts, options.account)).id
  const key = await accounts.addKey(accountId, { name: options.name, role: options.role, expiresAtMs })
  if (options.json === true) {
    print(JSON.stringify({ ...apiKeyJson(key), account_id: accountId, key: key.key }, null, 2))
  } else {
    tell(`Key ${key.id}, shown this once:`)
    print(key.key)
  }
}

export async function listKeys (accounts: Accounts, { print }: Output, { account, json }: Options & { account?: string }): Promise<void> {
  const keys = await accounts.listKeys(account === undefined ? undefined : (await findAccount(accounts, account)).id)
  const shown = keys.map(key => ({ ...apiKeyJson(key), account_id: key.accountId }))
  print(json === true
    ? JSON.stringify(shown, null, 2)
    : table(COLUMNS, shown.map(key => [key.id, key.account_id, key.name, key.role, key.created_at, key.expires_at, key.last_used_at])))
}

export async function removeKey (accounts: Accounts, { print }: Output, id: string, { json }: Options): Promise<void> {
  await accounts.removeKey(Number(id))
  print(json === true ? JSON.stringify({ id: Number(id), deleted: true }) : `Took key ${id} back.`)
}

/** A date, or a date with a time and its offset, as ISO 8601 writes them: milliseconds since 1970. Date.parse alone takes much more. */
function parseDate (text: string): number | undefined {
  const [, date] = /^([0-9]{4}-[0-9]{2}-[0-9]{2})(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2})?(?:Z|[+-][0-9]{2}:[0-9]{2}))?$/.exec(text) ?? []
  // The 31st of February would be taken for a day in March.
  const isDay = date !== undefined && new Date(date).getUTCDate() === Number(date.slice(8))
  const ms = isDay ? Date.parse(text) : NaN
  return Number.isNaN(ms) ? undefined : ms
}

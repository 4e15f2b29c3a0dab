import { apiKeyJson } from '../routes/json.js'
import type { Accounts } from '../domain/accounts.js'
import { findAccount } from './account.js'
import { CommandError, table, type Output } from './output.js'

interface Options { json?: boolean }

const COLUMNS = ['id', 'account', 'name', 'role', 'created_at', 'expires_at', 'last_used_at'] as const

export async function addKey (
  accounts: Accounts, { print, tell }: Output, options: Options & { account?: string, role: 'admin' | 'user', name: string, expires?: string }
): Promise<void> {
  if (options.role === 'user' && options.account === undefined) throw new CommandError('--account: a key with the role user needs one.')
  const expiresAtMs = options.expires === undefined ? undefined : Date.parse(options.expires)
  if (Number.isNaN(expiresAtMs)) throw new CommandError(`--expires: expected a date such as 2027-01-31T00:00:00Z, found "${options.expires}".`)
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

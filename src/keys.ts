import { randomBytes } from 'node:crypto'
import { existsSync, linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Config } from './config.js'
import { newApiKey } from './domain/accounts.js'

/** The secrets of an installation. */
export interface Keys {
  signingKey: string
  adminKey: string
  /** The file with the admin key; undefined where a setting gave it. */
  adminKeyFile: string | undefined
}

/** The secrets that settings gave, and for the others the files `signing-key` and `admin-api-key` (0600), made on first use. */
export function openKeys ({ dataFolder, signingKey, adminKey }: Pick<Config, 'dataFolder' | 'signingKey' | 'adminKey'>): Keys {
  const adminKeyFile = adminKey === undefined ? join(dataFolder, 'admin-api-key') : undefined
  return {
    signingKey: signingKey ?? readOrMake(join(dataFolder, 'signing-key'), () => randomBytes(32).toString('base64url')),
    adminKey: adminKey ?? readOrMake(join(dataFolder, 'admin-api-key'), newApiKey),
    adminKeyFile
  }
}

/** Written under another name and linked to its own, so that nobody ever reads half a key and two processes agree on one. */
function readOrMake (path: string, make: () => string): string {
  if (!existsSync(path)) {
    // Not the process's id: in two containers on one folder it can be the same.
    const draft = `${path}.${randomBytes(6).toString('hex')}`
    writeFileSync(draft, `${make()}\n`, { mode: 0o600, flag: 'wx', flush: true })
    try {
      linkSync(draft, path)
    } catch {
      // Another process was first, or the file system has no hard links.
      if (!existsSync(path)) renameSync(draft, path)
    } finally {
      rmSync(draft, { force: true })
    }
  }
  const secret = readFileSync(path, 'utf8').trim()
  if (secret.length < 32) throw new Error(`${path}: expected a secret of at least 32 characters, found ${secret.length}.`)
  return secret
}

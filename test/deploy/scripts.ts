import { execFile } from 'node:child_process'
import { readdir, writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Json, Service } from '../helper.js'

/** The folder of the scripts for SIP servers. */
export const DEPLOY = fileURLToPath(new URL('../../deploy/', import.meta.url))

export interface Ended { code: number, out: string, err: string }

export interface RunOptions {
  /** Added to the environment, and put before what the file of settings has. */
  env?: Record<string, string>
  cwd?: string
}

/** Runs a program to its end, with nothing of the test's own settings. */
export async function run (command: string, args: string[], { env = {}, cwd }: RunOptions = {}): Promise<Ended> {
  const own = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('VOICEMAILD_')))
  return await new Promise((resolve, reject) => {
    execFile(command, args, { env: { ...own, ...env }, cwd }, (error, out, err) => {
      if (error === null) resolve({ code: 0, out, err })
      else if (typeof error.code === 'number') resolve({ code: error.code, out, err })
      else reject(error)
    })
  })
}

/** Writes a file of settings such as an administrator would, for one run of a script; attempts do not wait for one another. */
export async function settingsFile (folder: string, settings: Record<string, string>): Promise<Record<string, string>> {
  const file = join(folder, 'upload.env')
  const lines = Object.entries({ VOICEMAILD_RETRY_SECONDS: '0', VOICEMAILD_SETTLE_SECONDS: '0', ...settings }).map(([name, value]) => `${name}=${value}\n`)
  await writeFile(file, `# Settings of the uploader\n\n${lines.join('')}`)
  return { VOICEMAILD_UPLOAD_ENV: file }
}

/** What a script needs to reach a service. */
export function reaching ({ url, adminKey }: Pick<Service, 'url' | 'adminKey'>): Record<string, string> {
  return { VOICEMAILD_URL: url, VOICEMAILD_API_KEY: adminKey }
}

/** Files below a folder, as paths within it, in order. */
export async function filesIn (folder: string): Promise<string[]> {
  return (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter(entry => entry.isFile())
    .map(entry => relative(folder, join(entry.parentPath, entry.name)))
    .sort()
}

/** What an account holds, oldest first, each with the bytes behind its URL. */
export async function voicemailsOf (service: Service, accountId: number): Promise<Array<{ from: string, type: string, bytes: Buffer }>> {
  const { body }: { body: Json[] } = await service.call('GET', `/accounts/${accountId}/voicemails?status=stored`)
  return await Promise.all(body.reverse().map(async ({ sip_from: from, content_type: type, download_url: url }) => (
    { from, type, bytes: Buffer.from(await (await fetch(url)).arrayBuffer()) }
  )))
}

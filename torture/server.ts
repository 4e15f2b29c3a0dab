import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

export const ADMIN_KEY = 'torture-admin-key-of-at-least-32-characters'
export const HEADERS = { 'x-api-key': ADMIN_KEY, 'content-type': 'application/json' }

/** A server in a process of its own. */
export interface RunningServer { child: ChildProcess, url: string, stop: () => Promise<void> }

/** Starts a server on a free port; `command` is what starts the program, such as `['node', 'dist/main.js']`. */
export async function startServer (command: readonly [string, ...string[]], settings: Record<string, string>): Promise<RunningServer> {
  const env = { ...process.env, PORT: '0', ADMIN_API_KEY: ADMIN_KEY, MIN_FREE_DISK: '0', ACCOUNT_OPEN_SLOTS: '0', LOG_LEVEL: 'fatal', ...settings }
  const child = spawn(command[0], [...command.slice(1), 'serve'], { env, stdio: ['ignore', 'ignore', 'pipe'] })
  const lines: string[] = []
  for await (const line of createInterface({ input: child.stderr })) {
    const [, url] = /listens on (\S+)/.exec(line) ?? []
    lines.push(line)
    if (url === undefined) continue
    child.stderr.resume()
    const stop = async (): Promise<void> => {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGTERM')
      await once(child, 'exit')
    }
    return { child, url, stop }
  }
  throw new Error(`the server did not start: ${lines.join('\n')}`)
}

/** Opens an account where there is none, and returns its id. */
export async function someAccount (url: string, headers = HEADERS): Promise<number> {
  await (await fetch(`${url}/accounts`, { method: 'POST', headers, body: JSON.stringify({ sip_uri: 'sip:bob@sip.example.org' }) })).arrayBuffer()
  const { id } = await (await fetch(`${url}/accounts/bob@sip.example.org/search`, { headers })).json() as { id: number }
  return id
}

/** Opens a slot for `audio/wav`; `path` is that of its upload URL. Status and code where it is refused. */
export async function someSlot (url: string, account: number, headers = HEADERS): Promise<{ status: number, id: string, path: string }> {
  const response = await fetch(`${url}/accounts/${account}/voicemails`, {
    method: 'POST', headers, body: JSON.stringify({ sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' })
  })
  const body = await response.json() as { id?: string, upload_url?: string }
  return { status: response.status, id: body.id ?? '', path: body.upload_url === undefined ? '' : new URL(body.upload_url).pathname }
}

import { readdir } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { randomFrom, someWav } from './rounds.js'
import { ADMIN_KEY, HEADERS, someAccount, someSlot } from './server.js'
import { someCase, type Targets, type WireCase } from './wire-cases.js'

export interface WireTally {
  cases: number
  /** How often each status was answered; `none` where the connection was closed without one. */
  answers: Record<string, number>
  /** A server that ended, a 5xx, a file left, an ordinary request that was not answered afterwards; each with its case. */
  crashes: string[]
}

export interface WireOptions {
  url: string
  adminKey?: string
  dataFolder: string
  /** Case n of a run is made from seed and n alone. */
  seed: number
  first?: number
  /** Asked before each case. */
  goesOn: (tally: Readonly<WireTally>) => boolean
  /** Whether the server's process still runs. */
  isAlive?: () => boolean
}

/** So long nobody has to wait, on the slowest machine. */
const HANGING_MS = 90_000
/** So long an answer is waited for: half a request has none. */
const PATIENCE_MS = 100

/** Sends bent requests over sockets of their own, one after the other, and looks after the server each time. */
export async function fuzzWire ({ url, adminKey = ADMIN_KEY, dataFolder, seed, first = 0, goesOn, isAlive = () => true }: WireOptions): Promise<WireTally> {
  const tally: WireTally = { cases: 0, answers: {}, crashes: [] }
  const headers = { ...HEADERS, 'x-api-key': adminKey }
  const account = await someAccount(url, headers)
  const filled = await someSlot(url, account, headers)
  await (await fetch(url + filled.path, { method: 'PUT', body: someWav(randomFrom(seed)) })).arrayBuffer()
  const { download_url: downloadUrl } = await (await fetch(`${url}/accounts/${account}/voicemails/${filled.id}`, { headers })).json() as { download_url: string }
  const targets: Targets = { account, adminKey, uploadPath: '', filledPath: filled.path, downloadPath: new URL(downloadUrl).pathname }

  for (let n = first; goesOn(tally) && isAlive(); n++) {
    if (targets.uploadPath === '' || n % 4 === 0) targets.uploadPath = (await someSlot(url, account, headers)).path
    const one = someCase(randomFrom(seed * 1_000_003 + n), targets)
    const crash = (what: string): void => { tally.crashes.push(`seed ${seed}, case ${n} (${one.kind}): ${what}`) }
    const answer = await send(url, one)
    tally.cases += 1
    if (answer === undefined) crash('the connection was neither answered nor closed')
    const statuses = [...(answer ?? '').matchAll(/^HTTP\/1\.1 (\d{3}) /gm)].map(([, status = '']) => status)
    for (const status of statuses.length === 0 ? ['none'] : statuses) tally.answers[status] = (tally.answers[status] ?? 0) + 1
    const failed = statuses.find(status => status.startsWith('5'))
    if (failed !== undefined) crash(`was answered with ${failed}`)
    const pong = await fetch(`${url}/ping`).then(async response => await response.text(), () => '')
    if (pong !== 'pong') crash('no ordinary request is answered after it')
    if (n % 50 === 49) await settle(crash)
  }
  if (!isAlive()) tally.crashes.push(`seed ${seed}, before case ${first + tally.cases}: the server ended`)
  else await settle(what => { tally.crashes.push(`seed ${seed}, at the end: ${what}`) })
  return tally

  /** Waits until nothing is being received, and compares files with voicemails. */
  async function settle (crash: (what: string) => void): Promise<void> {
    const sinceMs = performance.now()
    for (;;) {
      const incoming = await readdir(join(dataFolder, 'incoming'))
      const files = (await readdir(join(dataFolder, 'audio'), { recursive: true, withFileTypes: true })).filter(entry => entry.isFile()).length
      const response = await fetch(`${url}/accounts/${account}/voicemails?status=stored&limit=1`, { headers })
      await response.arrayBuffer()
      const stored = Number(response.headers.get('x-total-count'))
      if (incoming.length === 0 && files === stored) return
      if (performance.now() - sinceMs > HANGING_MS) {
        crash(`${incoming.length} files are left in incoming, and ${files} in audio for ${stored} voicemails`)
        return
      }
      await new Promise(resolve => { setTimeout(resolve, 20) })
    }
  }
}

/** Sends the pieces one after the other, ends (Node gives up a request whose sender has ended: some wait for an answer first), and reads until the connection is closed; undefined where it never is. */
async function send (url: string, { pieces, ending }: WireCase): Promise<string | undefined> {
  const { hostname, port } = new URL(url)
  return await new Promise(resolve => {
    const socket = connect({ host: hostname, port: Number(port), noDelay: true })
    const read: Buffer[] = []
    const timer = setTimeout(() => {
      socket.destroy()
      resolve(undefined)
    }, HANGING_MS)
    socket.on('data', chunk => { read.push(chunk) })
    // Being reset is an answer too: what was sent is refused.
    socket.on('error', () => {})
    socket.on('close', () => {
      clearTimeout(timer)
      resolve(Buffer.concat(read).toString('latin1'))
    })
    const next = (n: number): void => {
      const piece = pieces[n]
      if (piece !== undefined) socket.write(piece, () => { setImmediate(next, n + 1) })
      else if (ending === 'breaks off') socket.destroy()
      else if (ending === 'ends' || read.length > 0) socket.end()
      else {
        const patience = setTimeout(() => { socket.end() }, PATIENCE_MS)
        socket.once('data', () => { setImmediate(() => { socket.end() }) }).once('close', () => { clearTimeout(patience) })
      }
    }
    socket.on('connect', () => { next(0) })
  })
}

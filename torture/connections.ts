import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { HEADERS, someAccount, someSlot, startServer } from './server.js'

/**
 * Holds idle connections and slow uploads at one server at once (Linux), and asks ordinary requests meanwhile. Both processes need more
 * than 12,000 open files: `bash -c "ulimit -n 20000 && npx tsx torture/connections.ts"`.
 */
const { values } = parseArgs({
  options: {
    idle: { type: 'string', default: '10000' },
    uploads: { type: 'string', default: '1000' },
    seconds: { type: 'string', default: '40' },
    /** What an upload sends a second, in pieces of this many bytes. */
    rate: { type: 'string', default: '4000' },
    piece: { type: 'string', default: '400' }
  }
})
const [idleCount, uploadCount, seconds, rate, pieceBytes] = [values.idle, values.uploads, values.seconds, values.rate, values.piece].map(Number) as [number, number, number, number, number]
const folder = await mkdtemp(join(tmpdir(), 'voicemaild-connections-'))
const server = await startServer([process.execPath, 'dist/main.js'], { DATA_DIR: join(folder, 'data') })
const { hostname, port } = new URL(server.url)
const status = (): string => readFileSync(`/proc/${server.child.pid}/status`, 'utf8')
const megabytes = (name: 'VmRSS' | 'VmHWM'): number => Math.round(Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status())?.[1]) / 1024)
let refused = 0

async function open (): Promise<Socket> {
  return await new Promise((resolve, reject) => {
    const socket = connect({ host: hostname, port: Number(port) })
    socket.once('connect', () => { resolve(socket) }).once('error', reject)
  })
}

async function openMany (count: number, use: (socket: Socket, n: number) => void): Promise<void> {
  for (let n = 0; n < count; n += 100) {
    await Promise.all(Array.from({ length: Math.min(100, count - n) }, async (_none, at) => { use(await open(), n + at) }))
  }
}

const account = await someAccount(server.url)
const rssAtStart = megabytes('VmRSS')
const paths: string[] = []
for (let n = 0; n < uploadCount; n++) paths.push((await someSlot(server.url, account)).path)
const rssBefore = megabytes('VmRSS')

const idle: Socket[] = []
await openMany(idleCount, socket => {
  socket.on('error', () => {}).on('close', () => { refused += 1 }).resume()
  // A half of them has asked something once, and stays.
  if (idle.push(socket) % 2 === 0) socket.write('GET /ping HTTP/1.1\r\nHost: x\r\n\r\n')
})
const rssIdle = megabytes('VmRSS')

const bodyBytes = 44 + rate * (seconds + 5)
const header = Buffer.alloc(44)
header.write('RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x06\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data\xff\xff\xff\xff', 'latin1')
let answered = 0
const uploads: Socket[] = []
const timers: NodeJS.Timeout[] = []
await openMany(uploadCount, (socket, n) => {
  uploads.push(socket)
  let answer = ''
  socket.on('error', () => {}).on('data', chunk => {
    answer += String(chunk)
    if (/^HTTP\/1\.1 200 /.test(answer)) answered += 1
    else console.log(answer.slice(0, 300))
  })
  socket.write(`PUT ${paths[n] ?? ''} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\nContent-Length: ${bodyBytes}\r\n\r\n`)
  socket.write(header)
  let sent = 44
  const piece = Buffer.alloc(pieceBytes, n)
  timers.push(setInterval(() => {
    const bytes = Math.min(piece.length, bodyBytes - sent)
    sent += bytes
    if (bytes > 0) socket.write(piece.subarray(0, bytes))
  }, pieceBytes / rate * 1000))
})

const times: number[] = []
let mostRss = 0
const untilMs = performance.now() + seconds * 1000
while (performance.now() < untilMs) {
  const sinceMs = performance.now()
  await (await fetch(`${server.url}/accounts/${account}/voicemails?limit=20`, { headers: HEADERS })).arrayBuffer()
  times.push(performance.now() - sinceMs)
  mostRss = Math.max(mostRss, megabytes('VmRSS'))
  await new Promise(resolve => { setTimeout(resolve, 50) })
}
/** Where the memory is, in the server's own words. */
const metrics = await (await fetch(`${server.url}/metrics`)).text()
const ofMetrics = (name: string): number => Math.round(Number(new RegExp(`^${name} (.+)$`, 'm').exec(metrics)?.[1]) / 1024 / 1024)
const heap = { used: ofMetrics('nodejs_heap_size_used_bytes'), total: ofMetrics('nodejs_heap_size_total_bytes'), external: ofMetrics('nodejs_external_memory_bytes') }
const sorted = times.toSorted((a, b) => a - b)
const quantile = (part: number): number => Math.round((sorted[Math.floor(sorted.length * part)] ?? 0) * 10) / 10
const heldIdle = idleCount - refused

// All of them end at about the same time.
const allAnsweredByMs = performance.now() + 60_000
const allAnswered = (): boolean => answered === uploadCount || performance.now() > allAnsweredByMs
while (!allAnswered()) await new Promise(resolve => { setTimeout(resolve, 100) })
for (const timer of timers) clearInterval(timer)
const result = {
  idle: heldIdle,
  uploads: uploadCount,
  uploadsStored: answered,
  rssMegabytes: { atStart: rssAtStart, withSlots: rssBefore, withIdle: rssIdle, most: mostRss, peakOfAll: megabytes('VmHWM') },
  heapMegabytes: heap,
  requests: times.length,
  milliseconds: { median: quantile(0.5), p95: quantile(0.95), most: quantile(0.999) }
}
console.log(JSON.stringify(result))
for (const socket of [...idle, ...uploads]) socket.destroy()
await server.stop()
await rm(folder, { recursive: true })
if (mostRss >= 300 || result.milliseconds.median >= 100 || answered < uploadCount || heldIdle < idleCount) process.exitCode = 1

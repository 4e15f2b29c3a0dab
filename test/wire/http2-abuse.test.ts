import t, { type Test } from 'tap'
import { sample, startTlsService, wavOf, type TlsService } from '../helper.js'
import { until } from './connection.js'
import { openSession, send } from './http2-client.js'
import {
  CONTINUATION, DATA, END_HEADERS, END_STREAM, fields, frame, GOAWAY, HEADERS, openFrames, PING, requestFields, RST_STREAM, setting, SETTINGS, uint32, WINDOW_UPDATE, type Frames
} from './http2-frames.js'

/** What the service may have grown by after an abuse: what its own buffers and the garbage of a burst take. */
const MAX_GROWTH_BYTES = 200_000_000

interface Attack {
  service: TlsService
  accountId: number
  open: (options?: { settings?: Uint8Array, isPolite?: boolean }) => Promise<Frames>
  /** An ordinary request is answered, memory is bounded, and nothing is on the disk that was not there. */
  survived: (title: string, files?: number) => Promise<void>
}

async function startAttack (t: Test): Promise<Attack> {
  // Node 20 may not see that a client has gone while it sent: its silence ends the upload then, and the end of the service its connection.
  const service = await startTlsService(t, { settings: { LOG_LEVEL: 'error', UPLOAD_IDLE_TIMEOUT: '1', STOP_TIMEOUT: '1' } })
  const { id: accountId } = await service.addUser()
  const beforeBytes = process.memoryUsage().rss
  return {
    service,
    accountId,
    open: async options => await openFrames(t, service, options),
    survived: async (title, files = 0) => {
      const session = await openSession(t, service)
      t.match(await send(session, 'GET', '/ping'), { status: 200, text: 'pong' }, `${title}: an ordinary request is answered`)
      session.destroy()
      t.equal((await service.files()).length, files, 'nothing is left on disk')
      const grownBytes = process.memoryUsage().rss - beforeBytes
      t.ok(grownBytes < MAX_GROWTH_BYTES, `${Math.round(grownBytes / 1e6)} MB`)
    }
  }
}

/** Streams of a client have odd numbers. */
const streamId = (n: number): number => 2 * n + 1

t.test('requests taken back as fast as they are made end their connection (CVE-2023-44487)', async t => {
  const { open, survived } = await startAttack(t)
  const frames = await open()
  for (let n = 0; n < 20_000 && !frames.isRefused(); n += 100) {
    await frames.send(...Array.from({ length: 100 }, (_, k) => Buffer.concat([
      frame(HEADERS, END_HEADERS | END_STREAM, streamId(n + k), requestFields('GET', '/ping')), frame(RST_STREAM, 0, streamId(n + k), uint32(8))
    ])))
  }
  t.ok(await frames.next(({ type }) => type === GOAWAY), 'it is told to go')
  await survived('rapid reset')
})

t.test('uploads taken back as fast as they are made leave nothing', async t => {
  const { open, survived, service, accountId } = await startAttack(t)
  const frames = await open()
  const audio = (await sample('ok/pcm16-16k.wav')).subarray(0, 1000)
  const slots = await Promise.all(Array.from({ length: 50 }, async () => await service.openSlot(accountId)))
  for (let n = 0; n < 150; n++) {
    await frames.send(
      frame(HEADERS, END_HEADERS, streamId(n), requestFields('PUT', slots[n % 50]?.path ?? '', { 'content-length': '2000' })),
      frame(DATA, 0, streamId(n), audio.subarray(0, 300)), frame(RST_STREAM, 0, streamId(n), uint32(8))
    )
  }
  frames.destroy()
  await until(async () => (await service.files()).length === 0)
  const rows = await Promise.all(slots.map(async ({ id }) => await service.data.voicemailStore.find(id)))
  t.ok(rows.every(row => row?.uploadedAtMs === null))
  await survived('uploads taken back')
})

t.test('headers that never end are not kept', async t => {
  const { open, survived } = await startAttack(t)
  const frames = await open()
  const block = fields(Array.from({ length: 100 }, (_, n): [string, string] => [`x-${n}`, 'x'.repeat(140)]))
  await frames.send(frame(HEADERS, END_STREAM, 1, requestFields('GET', '/ping')))
  for (let n = 0; n < 3000 && !frames.isRefused(); n++) await frames.send(frame(CONTINUATION, 0, 1, block.subarray(0, 16_000)))
  await frames.refused
  await survived('a flood of CONTINUATION')
})

t.test('headers beyond 16 KiB, or in great number, are refused', async t => {
  const { open, survived } = await startAttack(t)
  for (const [title, others] of [
    ['one of 20 KB', { 'x-large': 'x'.repeat(20_000) }],
    ['a thousand', Object.fromEntries(Array.from({ length: 1000 }, (_, n) => [`x-${n}`, '']))]
  ] as const) {
    const frames = await open()
    const block = requestFields('GET', '/ping', others)
    const pieces = Array.from({ length: Math.ceil(block.length / 16_000) }, (_, n) => block.subarray(n * 16_000, (n + 1) * 16_000))
    await frames.send(...pieces.map((piece, n) => frame(n === 0 ? HEADERS : CONTINUATION, (n === 0 ? END_STREAM : 0) | (n === pieces.length - 1 ? END_HEADERS : 0), 1, piece)))
    const refusal = await frames.next(({ type, stream }) => (type === RST_STREAM && stream === 1) || type === GOAWAY || type === HEADERS)
    t.ok(refusal === undefined || refusal.type !== HEADERS, `${title}: no answer`)
    frames.destroy()
  }
  // Entries of the table, each named again and again in one byte: 4 KB of memory that would become megabytes of headers.
  const bomb = await open()
  const entry = Buffer.concat([Buffer.from([0x40]), fields([['x-bomb', 'x'.repeat(3900)]]).subarray(1)])
  await bomb.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, Buffer.concat([requestFields('GET', '/ping'), entry, Buffer.alloc(12_000, 0xbe)])))
  const refusal = await bomb.next(({ type }) => type === RST_STREAM || type === GOAWAY || type === HEADERS)
  t.ok(refusal === undefined || refusal.type !== HEADERS, 'a bomb of HPACK: no answer')
  await survived('headers')
})

t.test('floods of frames that ask for nothing are bounded', async t => {
  const { open, survived } = await startAttack(t)
  for (const [title, flood] of [
    ['PING', frame(PING, 0, 0, Buffer.alloc(8))],
    ['SETTINGS', frame(SETTINGS, 0, 0, setting(4, 65_535))],
    ['SETTINGS with many entries', frame(SETTINGS, 0, 0, Buffer.concat(Array.from({ length: 1000 }, () => setting(4, 65_535))))],
    ['WINDOW_UPDATE', frame(WINDOW_UPDATE, 0, 0, uint32(1))],
    ['frames of an unknown type', frame(0xbb, 0, 0, Buffer.alloc(1000))]
  ] as const) {
    const frames = await open()
    for (let n = 0; n < 20_000 && !frames.isRefused(); n += 500) await frames.send(...Array.from({ length: 500 }, () => flood))
    frames.destroy()
    await survived(title)
  }
})

t.test('empty DATA frames that end nothing end their connection', async t => {
  const { open, survived, service, accountId } = await startAttack(t)
  const { path } = await service.openSlot(accountId)
  const frames = await open()
  await frames.send(frame(HEADERS, END_HEADERS, 1, requestFields('PUT', path)))
  for (let n = 0; n < 20_000 && !frames.isRefused(); n += 500) await frames.send(...Array.from({ length: 500 }, () => frame(DATA, 0, 1)))
  await frames.refused
  await survived('empty DATA')
})

t.test('of more streams than are allowed the rest is refused, and those under way go on', async t => {
  const { open, survived } = await startAttack(t)
  const frames = await open({ isPolite: false })
  const key = { 'content-type': 'application/json', 'content-length': '100' }
  await frames.send(...Array.from({ length: 500 }, (_, n) => frame(HEADERS, END_HEADERS, streamId(n), requestFields('POST', '/uploads/x', key))))
  const settings = await frames.next(({ type, flags }) => type === SETTINGS && flags === 0)
  t.ok(settings?.payload.includes(setting(3, 128)), 'it is told how many')
  const refused = await frames.next(({ type }) => type === RST_STREAM)
  t.equal(refused?.payload.readUInt32BE(), 7, 'REFUSED_STREAM: it may try again')
  t.ok(await frames.next(({ type, stream }) => type === HEADERS && stream === 1), 'and the first ones are answered')
  await survived('500 streams')
  const knowing = await open()
  await knowing.send(...Array.from({ length: 500 }, (_, n) => frame(HEADERS, END_HEADERS, streamId(n), requestFields('POST', '/uploads/x', key))))
  await knowing.refused
  t.pass('whoever knows the limit, and does not keep it, has to go')
  await survived('500 streams again')
})

t.test('what is asked for and never read is not gathered in memory', async t => {
  const { open, survived, service, accountId } = await startAttack(t)
  const wav = wavOf(10_000_000)
  const { path: upload } = await service.openSlot(accountId)
  const session = await openSession(t, service)
  const { json } = await send(session, 'PUT', upload, {}, wav)
  session.destroy()
  const path = new URL(json.download_url).pathname
  for (const windowBytes of [0, 1]) {
    const frames = await open({ settings: setting(4, windowBytes) })
    await frames.send(...Array.from({ length: 120 }, (_, n) => frame(HEADERS, END_HEADERS | END_STREAM, streamId(n), requestFields('GET', path))))
    t.ok(await frames.next(({ type, stream }) => type === HEADERS && stream === streamId(119)), 'all are answered')
    await survived(`120 downloads through windows of ${windowBytes}`, 1)
    frames.destroy()
  }
})

t.test('what is sent on many streams at once, whatever the windows are, is not gathered in memory', async t => {
  const { open, survived, service, accountId } = await startAttack(t)
  const frames = await open()
  const slots = await Promise.all(Array.from({ length: 40 }, async () => await service.openSlot(accountId)))
  const piece = Buffer.concat([wavOf(1000), Buffer.alloc(15_000)])
  await frames.send(...slots.map(({ path }, n) => frame(HEADERS, END_HEADERS, streamId(n), requestFields('PUT', path))))
  for (let n = 0; n < 20 && !frames.isRefused(); n++) await frames.send(...slots.map((_, k) => frame(DATA, 0, streamId(k), n === 0 ? piece : Buffer.alloc(16_000))))
  frames.destroy()
  await until(async () => (await service.files()).length === 0)
  await survived('many uploads')
})

t.test('what is no HTTP/2 after all ends its connection', async t => {
  const { open, survived } = await startAttack(t)
  for (const [title, bytes] of [
    ['DATA of a stream that is none', frame(DATA, 0, 1, Buffer.from('x'))],
    ['HEADERS of an even stream', frame(HEADERS, END_HEADERS | END_STREAM, 2, requestFields('GET', '/ping'))],
    ['a frame longer than allowed', frame(DATA, 0, 1, Buffer.alloc(20_000))],
    ['a window beyond all bounds', Buffer.concat([frame(WINDOW_UPDATE, 0, 0, uint32(0x7fffffff)), frame(WINDOW_UPDATE, 0, 0, uint32(0x7fffffff))])],
    ['HPACK that is none', frame(HEADERS, END_HEADERS | END_STREAM, 1, Buffer.alloc(10, 0xff))]
  ] as const) {
    const frames = await open()
    await frames.send(bytes)
    await frames.refused
    t.pass(title)
  }
  const frames = await open()
  await frames.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, fields([[':method', 'GET'], [':scheme', 'https'], [':path', '/ping'], ['connection', 'close']])))
  t.ok(await frames.next(({ type }) => type === RST_STREAM || type === GOAWAY), 'a header of connections')
  await survived('rubbish')
})

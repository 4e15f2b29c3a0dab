import { once } from 'node:events'
import { connect } from 'node:tls'
import type { TlsService } from '../helper.js'

/** Types of frames (RFC 9113 section 6). */
export const DATA = 0
export const HEADERS = 1
export const RST_STREAM = 3
export const SETTINGS = 4
export const PING = 6
export const GOAWAY = 7
export const WINDOW_UPDATE = 8
export const CONTINUATION = 9
export const ACK = 1
export const END_STREAM = 1
export const END_HEADERS = 4

export interface Frame { type: number, flags: number, stream: number, payload: Buffer }

/** A connection of HTTP/2 on which a test says what no client would. */
export interface Frames {
  /** Resolves when the operating system has the bytes, or the other side has said that it takes no more. */
  send: (...frames: Buffer[]) => Promise<void>
  /** What has come so far. */
  received: Frame[]
  /** Resolves with the first such frame, come or to come; with undefined where the connection ends before it. */
  next: (isWanted: (frame: Frame) => boolean) => Promise<Frame | undefined>
  /** Whether the other side has said GOAWAY, or ended the connection. */
  isRefused: () => boolean
  refused: Promise<void>
  closed: Promise<void>
  destroy: () => void
}

export function frame (type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head.writeUInt8(type, 3)
  head.writeUInt8(flags, 4)
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** A number of four bytes, as RST_STREAM and WINDOW_UPDATE have it. */
export function uint32 (value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** One setting: 3 is MAX_CONCURRENT_STREAMS, 4 INITIAL_WINDOW_SIZE. */
export function setting (id: number, value: number): Buffer {
  return Buffer.concat([Buffer.from([0, id]), uint32(value)])
}

/** Fields as literals that nobody has to remember (RFC 7541 section 6.2.2). */
export function fields (entries: Iterable<readonly [name: string, value: string]>): Buffer {
  const text = (value: string): Buffer => {
    const { length } = value
    // Numbers of more than seven bits go on in the next bytes (section 5.1).
    const prefix = length < 127 ? [length] : [127, ...rest(length - 127)]
    return Buffer.concat([Buffer.from(prefix), Buffer.from(value, 'latin1')])
  }
  return Buffer.concat([...entries].flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]))
}

function rest (value: number): number[] {
  return value < 128 ? [value] : [value % 128 + 128, ...rest(Math.floor(value / 128))]
}

/** What a request begins with. */
export function requestFields (method: string, path: string, others: Record<string, string> = {}): Buffer {
  return fields(Object.entries({ ':method': method, ':scheme': 'https', ':authority': 'voicemail.example.org', ':path': path, ...others }))
}

/**
 * Connects, and says hello; the settings are for what comes back. What the other side has for settings is acknowledged, and holds from then
 * on, unless `isPolite` is false. The connection ends with the test at the latest.
 */
export async function openFrames (
  t: { teardown: (run: () => unknown) => void }, { url, ca }: Pick<TlsService, 'url' | 'ca'>, { settings = Buffer.alloc(0), isPolite = true }: { settings?: Uint8Array, isPolite?: boolean } = {}
): Promise<Frames> {
  const socket = connect({ host: '127.0.0.1', port: Number(new URL(url).port), ca, ALPNProtocols: ['h2'] })
  const received: Frame[] = []
  let buffered = Buffer.alloc(0)
  let isClosed = false
  const waiting = new Set<() => void>()
  const wake = (): void => { for (const look of waiting) look() }
  socket.on('error', () => {})
  const closed = new Promise<void>(resolve => {
    socket.on('close', () => {
      isClosed = true
      wake()
      resolve()
    })
  })
  t.teardown(() => { socket.destroy() })
  socket.on('data', piece => {
    buffered = Buffer.concat([buffered, piece])
    while (buffered.length >= 9 && buffered.length >= 9 + buffered.readUIntBE(0, 3)) {
      const end = 9 + buffered.readUIntBE(0, 3)
      received.push({ type: buffered.readUInt8(3), flags: buffered.readUInt8(4), stream: buffered.readUInt32BE(5), payload: buffered.subarray(9, end) })
      buffered = buffered.subarray(end)
    }
    wake()
  })
  const next: Frames['next'] = async isWanted => await new Promise(resolve => {
    const look = (): void => {
      const found = received.find(isWanted)
      if (found === undefined && !isClosed) return
      waiting.delete(look)
      resolve(found)
    }
    waiting.add(look)
    look()
  })
  let isRefused = false
  const refused = next(({ type }) => type === GOAWAY).then(() => { isRefused = true })
  const send: Frames['send'] = async (...frames) => {
    if (isRefused) return
    await Promise.race([refused, new Promise<void>(resolve => { socket.write(Buffer.concat(frames), () => { resolve() }) })])
  }
  await once(socket, 'secureConnect')
  await send(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(SETTINGS, 0, 0, settings))
  if (isPolite) {
    await next(({ type, flags }) => type === SETTINGS && flags === 0)
    await send(frame(SETTINGS, ACK, 0))
  }
  return {
    send,
    received,
    closed,
    refused,
    isRefused: () => isRefused,
    destroy: () => { socket.destroy() },
    next
  }
}

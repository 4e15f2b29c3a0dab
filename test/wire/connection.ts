import { connect, type Socket } from 'node:net'

export interface RawAnswer { status: number, headers: Headers, body: string }

/** One connection to the service, on which a test says what no HTTP client would. */
export interface Connection {
  socket: Socket
  /** Resolves when the operating system has the bytes, or nobody takes them any more. */
  send: (...pieces: Array<string | Uint8Array>) => Promise<void>
  /** The next answer; `100 Continue` is one too. Rejects where the connection ends before it does. */
  answer: () => Promise<RawAnswer>
  /** Resolves when the connection is closed: `end` where the service ended it in good order, else the code of the error. */
  closed: Promise<string>
}

/** Connects to a service; the connection ends with the test at the latest. */
export function connectTo (t: { teardown: (run: () => unknown) => void }, url: string): Connection {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port) })
  t.teardown(() => { socket.destroy() })
  let received = Buffer.alloc(0)
  let isClosed = false
  let ending = 'end'
  let wake = (): void => {}
  socket.on('data', chunk => {
    received = Buffer.concat([received, chunk])
    wake()
  })
  socket.on('error', error => { ending = 'code' in error ? String(error.code) : error.message })
  const closed = new Promise<string>(resolve => {
    socket.on('close', () => {
      isClosed = true
      wake()
      resolve(ending)
    })
  })
  return {
    socket,
    closed,
    send: async (...pieces) => {
      const bytes = Buffer.concat(pieces.map(piece => Buffer.from(piece)))
      await new Promise<void>(resolve => { socket.write(bytes, () => { resolve() }) })
    },
    answer: async () => {
      for (;;) {
        const parsed = parseAnswer(received)
        if (parsed !== undefined) {
          received = received.subarray(parsed.length)
          return parsed.answer
        }
        if (isClosed) throw new Error(`The connection ended (${ending}) after ${received.length} bytes of an answer.`)
        await new Promise<void>(resolve => { wake = resolve })
      }
    }
  }
}

/** The head of a request. */
export function head (method: string, path: string, headers: Record<string, string | number> = {}): string {
  const lines = Object.entries({ host: 'voicemail.example.org', ...headers }).map(([name, value]) => `${name}: ${value}\r\n`)
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n`
}

/** One chunk of a chunked body. */
export function chunk (bytes: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')])
}

/** Asks again and again until it is true; the test's own time limit ends what never is. */
export async function until (isTrue: () => Promise<boolean>): Promise<void> {
  while (!await isTrue()) await new Promise<void>(resolve => { setTimeout(resolve, 5) })
}

function parseAnswer (bytes: Buffer): { answer: RawAnswer, length: number } | undefined {
  const headEnd = bytes.indexOf('\r\n\r\n')
  if (headEnd === -1) return undefined
  const [statusLine = '', ...lines] = bytes.toString('latin1', 0, headEnd).split('\r\n')
  const headers = new Headers(lines.map((line): [string, string] => {
    const colon = line.indexOf(':')
    return [line.slice(0, colon), line.slice(colon + 1).trim()]
  }))
  const bodyStart = headEnd + 4
  const length = bodyStart + Number(headers.get('content-length') ?? 0)
  if (bytes.length < length) return undefined
  return { answer: { status: Number(statusLine.split(' ')[1]), headers, body: bytes.toString('latin1', bodyStart, length) }, length }
}

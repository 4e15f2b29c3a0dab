import { someWav } from './rounds.js'

/** What a case can be about: paths that exist. */
export interface Targets {
  account: number
  adminKey: string
  /** Of an open slot, and of one that is filled. */
  uploadPath: string
  filledPath: string
  downloadPath: string
}

/** Bytes for one connection, in the pieces in which they are sent. */
export interface WireCase { kind: string, pieces: Buffer[], ending: 'waits' | 'ends' | 'breaks off' }

interface Message { line: string, headers: string[], body: Buffer, eol: string }

type Random = () => number
const below = (random: Random, n: number): number => Math.floor(random() * n)
function pick<T> (random: Random, choices: readonly [T, ...T[]]): T {
  return choices[below(random, choices.length)] ?? choices[0]
}

const BOUNDARIES = ['simple boundary', 'x', '----WebKitFormBoundary7MA4YWxkTrZu0gW', '-'.repeat(70), '"', ''] as const
const ODD_TEXTS = ['', ' ', '\0', '\t', '%', '%00', '%ff', '..', '../../etc/passwd', '//', '?', '#', '\\', 'é', '\x7f', '\x80\xff', 'A'.repeat(3000), 'a,b;c=d', '__proto__', '$' + '{x}', '{', "'", '*'] as const
const LENGTHS = ['-1', '+5', '0', '00000000000000000005', '0x10', '1e3', '', ' ', '5, 5', '5, 6', '9'.repeat(30), '18446744073709551616', '4294967296', 'abc', '5 5', '1', '100000', '15000001', '14999999'] as const
const ODD_HEADERS = [
  'Transfer-Encoding: chunked', 'Transfer-Encoding: gzip, chunked', 'Transfer-Encoding: chunked, identity', 'Transfer-Encoding: identity', 'Transfer-Encoding : chunked',
  'Transfer-Encoding: xchunked', 'Transfer-Encoding:\x0bchunked', 'Expect: 100-continue', 'Expect: 200-ok', 'Upgrade: websocket\r\nConnection: upgrade', 'Upgrade: h2c', 'Connection: close',
  'Connection: keep-alive, content-length', 'Host: ', 'Host: a\r\nHost: b', 'no colon at all', ': no name', 'X: folded\r\n line', 'X: \0', 'X: a\rb', 'X\x01: y', 'Content-Type: audio/wav', 'Content-Type: audio/opus',
  'Content-Type: ;;;', 'Content-Type: multipart/form-data', 'Content-Type: multipart/form-data; boundary=', `Content-Type: multipart/form-data; boundary=${'b'.repeat(300)}`, 'Content-Type: application/json; charset=utf-7',
  'Content-Encoding: gzip', 'Range: bytes=0-1', 'Range: bytes=-0', 'Range: bytes=5-1,2-', `Range: bytes=${'9'.repeat(400)}-`, 'If-None-Match: *', 'If-Modified-Since: never', 'If-Range: "x"', 'If-Match: "x"',
  'x-api-key: ', 'Authorization: Bearer ', 'Authorization: Bearer a.b.c', 'Cookie: a=b', `X-Long: ${'x'.repeat(20_000)}`, Array.from({ length: 150 }, (_none, n) => `X-${n}: y`).join('\r\n'), 'Origin: https://evil.example',
  'X-Forwarded-For: 999.1.1.1', 'Accept: */*;q=9', 'Keep-Alive: timeout=-1', 'Trailer: content-length', 'HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA', 'Content-Length: 0'
] as const
const METHODS = ['GET', 'HEAD', 'PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS', 'CONNECT', 'TRACE', 'PROPFIND', 'PRI', 'get', 'X', 'PUTPUTPUT', ''] as const
const VERSIONS = ['HTTP/1.1', 'HTTP/1.0', 'HTTP/0.9', 'HTTP/2.0', 'HTTP/1.', 'HTTP/1.1 ', 'HTTP/9.9', 'http/1.1', '', 'ICE/1.0', 'RTSP/1.0'] as const

/** A request as it should be, which is then bent. */
function wellFormed (random: Random, targets: Targets): { kind: string, message: Message } {
  const { account, adminKey } = targets
  const uploadPath = random() < 0.1 ? targets.filledPath : targets.uploadPath
  const audio = someWav(() => random() * 0.2)
  const boundary = pick(random, BOUNDARIES)
  const withKey = `x-api-key: ${adminKey}`
  const message = (line: string, headers: string[], body: Buffer = Buffer.alloc(0)): Message => ({
    line: `${line} HTTP/1.1`, headers: ['Host: localhost', ...headers, ...body.length > 0 ? [`Content-Length: ${body.length}`] : []], body, eol: '\r\n'
  })
  const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))
  const part = Buffer.concat([
    Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="/a/b.wav"\r\nContent-Type: audio/wav\r\n\r\n`, 'latin1'), audio, Buffer.from(`\r\n--${boundary}--\r\n`, 'latin1')
  ])
  const slot = { sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' }
  return pick(random, [
    { kind: 'PUT', message: message(`PUT ${uploadPath}`, ['Content-Type: audio/wav'], audio) },
    { kind: 'POST', message: message(`POST ${uploadPath}`, ['Content-Type: audio/wav'], audio) },
    { kind: 'multipart', message: message(`POST ${uploadPath}`, [`Content-Type: multipart/form-data; boundary="${boundary}"`], part) },
    { kind: 'multipart', message: message(`POST /api${uploadPath}`, [`Content-Type: multipart/form-data; boundary=${boundary}`], part) },
    { kind: 'chunked', message: { ...message(`PUT ${uploadPath}`, ['Transfer-Encoding: chunked', 'Content-Type: audio/wav']), body: chunked(random, audio) } },
    { kind: 'chunked multipart', message: { ...message(`POST ${uploadPath}`, ['Transfer-Encoding: chunked', `Content-Type: multipart/form-data; boundary="${boundary}"`]), body: chunked(random, part) } },
    { kind: 'slot', message: message(`POST /accounts/${account}/voicemails`, [withKey, 'Content-Type: application/json'], json(slot)) },
    { kind: 'download', message: message(`GET ${targets.downloadPath}`, ['Range: bytes=0-99']) },
    { kind: 'list', message: message(`GET /accounts/${account}/voicemails?limit=5`, [withKey]) },
    { kind: 'search', message: message('GET /api/accounts/bob@sip.example.org/search', [withKey, 'content-type: application/json', 'content-length: 0']) },
    { kind: 'delete', message: message(`DELETE /accounts/${account}/voicemails/01a20ece-8b2d-76c6-aa52-b2ac29239933`, [withKey]) }
  ])
}

/** Cut into chunks (RFC 9112 section 7.1), now and then wrongly. */
function chunked (random: Random, body: Buffer): Buffer {
  const parts: Buffer[] = []
  for (let at = 0; at < body.length;) {
    const chunk = body.subarray(at, at + 1 + below(random, pick(random, [3, 5000, 60_000])))
    at += chunk.length
    const size = random() < 0.97 ? chunk.length.toString(16) : pick(random, ['-1', '0', 'FFFFFFFFFFFFFFFFF', '7fffffffffffffff', 'xyz', '', ' 5', `${'0'.repeat(500)}5`, `${chunk.length.toString(16)}1`])
    const extension = random() < 0.95 ? '' : pick(random, [';a=b', ';', `;${'e'.repeat(20_000)}`, ';\0', ';a="\r\n"'])
    const end = random() < 0.98 ? '\r\n' : pick(random, ['\n', '', '\r', 'xx'])
    parts.push(Buffer.from(`${size}${extension}\r\n`, 'latin1'), chunk, Buffer.from(end))
    if (parts.length > 600) at = body.length
  }
  const last = random() < 0.85 ? '0\r\n\r\n' : pick(random, ['', '0\r\n', '0\r\nTrailer: x\r\n\r\n', '0\r\nContent-Length: 5\r\n\r\n', '00000\r\n\r\n', '0\r\n\r\n0\r\n\r\n', `0\r\n${'T: x\r\n'.repeat(3000)}\r\n`])
  return Buffer.concat([...parts, Buffer.from(last)])
}

/** One bend of one place. */
function bend (random: Random, { line, headers, body, eol }: Message): Message {
  const [method = '', path = '', version = ''] = line.split(' ')
  const header = below(random, headers.length + 1)
  const at = below(random, body.length + 1)
  return pick<() => Message>(random, [
    () => ({ line: `${pick(random, METHODS)} ${path} ${version}`, headers, body, eol }),
    () => ({ line: `${method} ${path.slice(0, below(random, path.length))}${pick(random, ODD_TEXTS)}${path.slice(below(random, path.length))} ${version}`, headers, body, eol }),
    () => ({ line: `${method} ${pick(random, ['*', 'http://x/', 'http://', 'x', '', '/', `/${'y'.repeat(30_000)}`])} ${version}`, headers, body, eol }),
    () => ({ line: `${method} ${path} ${pick(random, VERSIONS)}`, headers, body, eol }),
    () => ({ line, headers: headers.toSpliced(header, 1), body, eol }),
    () => ({ line, headers: headers.toSpliced(header, 0, pick(random, ODD_HEADERS)), body, eol }),
    () => ({ line, headers: [...headers.filter(header => random() < 0.5 || !/^content-length/i.test(header)), `Content-Length: ${pick(random, LENGTHS)}`], body, eol }),
    () => ({ line, headers, body: body.subarray(0, at), eol }),
    () => ({ line, headers, body: Buffer.concat([body, Buffer.alloc(below(random, 100_000), 'x')]), eol }),
    () => ({ line, headers, body: Buffer.concat([body.subarray(0, at), Buffer.from(pick(random, ['\r\n', '\r\n--', '--simple boundary--', '\0', '\r', '\r\n--x\r\n\r\n', 'RIFF'])), body.subarray(at)]), eol }),
    () => ({ line, headers, body, eol: pick(random, ['\n', '\r', '\r\r\n', ' \r\n']) }),
    () => ({ line, headers, body: chunked(random, body), eol })
  ])()
}

/** Bends without knowing what the bytes mean. */
function scribble (random: Random, bytes: Buffer): Buffer {
  const at = below(random, random() < 0.7 ? Math.min(bytes.length, 400) : bytes.length)
  const length = 1 + below(random, 20)
  return pick<() => Buffer>(random, [
    () => bytes.subarray(0, at),
    () => Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]),
    () => Buffer.concat([bytes.subarray(0, at), Buffer.from(Array.from({ length }, () => below(random, 256))), bytes.subarray(at + length)]),
    () => Buffer.concat([bytes.subarray(0, at), bytes.subarray(at, at + length), bytes.subarray(at)])
  ])()
}

/** A case, always the same for the same numbers and targets. */
export function someCase (random: Random, targets: Targets): WireCase {
  let { kind, message } = wellFormed(random, targets)
  for (let bends = below(random, 3); bends > 0; bends--) message = bend(random, message)
  const { line, headers, body, eol } = message
  let bytes = Buffer.concat([Buffer.from([line, ...headers, '', ''].join(eol), 'latin1'), body])
  if (random() < 0.25) bytes = Buffer.from(scribble(random, bytes))
  // Behind a refused one too, a request is answered or the connection closed, and nothing else is taken for a request.
  if (random() < 0.25) bytes = Buffer.concat([bytes, Buffer.from('GET /ping HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(1 + below(random, 3)))])
  const cuts = Array.from({ length: below(random, 6) }, () => below(random, random() < 0.5 ? Math.min(600, bytes.length) : bytes.length)).sort((a, b) => a - b)
  const pieces = [0, ...cuts].map((from, n) => bytes.subarray(from, cuts[n] ?? bytes.length)).filter(piece => piece.length > 0)
  return { kind, pieces, ending: pick(random, ['waits', 'waits', 'waits', 'ends', 'breaks off']) }
}

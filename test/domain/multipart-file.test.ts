import multipart from '@fastify/multipart'
import fc from 'fast-check'
import fastify from 'fastify'
import { buffer } from 'node:stream/consumers'
import t from 'tap'
import { parseHeaderValue } from '../../src/domain/header-value.js'
import { MAX_AROUND_BYTES, readFilePart } from '../../src/domain/multipart-file.js'
import { AppError } from '../../src/errors.js'
import { sample } from '../helper.js'

interface Part { headers: string[], content: Buffer }

const CRLF = '\r\n'
const FORM = 'multipart/form-data; boundary=frontier'
const AUDIO = Buffer.from(Array.from({ length: 2_000 }, (_, index) => index * index % 256))
const bytes = (...pieces: Array<string | Buffer>): Buffer => Buffer.concat(pieces.map(piece => Buffer.from(piece)))
const part = (content: Buffer | string, ...headers: string[]): Part => ({ headers, content: Buffer.from(content) })
const field = (name: string, content = 'text'): Part => part(content, `Content-Disposition: form-data; name="${name}"`)
const file = (content: Buffer = AUDIO): Part => part(content, 'Content-Disposition: form-data; name="file"; filename="x.wav"', 'Content-Type: audio/wav')

interface Around { boundary?: string, preamble?: string, epilogue?: string, padding?: string }

/** RFC 2046 section 5.1.1, as a sender writes it. */
function encode (parts: Part[], { boundary = 'frontier', preamble = '', epilogue = '', padding = '' }: Around = {}): Buffer {
  return bytes(
    preamble === '' ? '' : preamble + CRLF,
    ...parts.flatMap(({ headers, content }) => [`--${boundary}${padding}${CRLF}`, ...headers.map(header => header + CRLF), CRLF, content, CRLF]),
    `--${boundary}--${epilogue === '' ? '' : CRLF + epilogue}`
  )
}

/** Cuts a body into chunks whose sizes go round in `sizes`. */
async function * inChunks (body: Buffer, sizes: readonly number[] = [64 * 1024]): AsyncGenerator<Uint8Array> {
  for (let at = 0, turn = 0; at < body.length; turn++) {
    const size = Math.max(1, sizes[turn % sizes.length] ?? 1)
    // A view that begins somewhere inside its memory, as the chunks of a socket do.
    yield new Uint8Array(body.buffer, body.byteOffset + at, Math.min(size, body.length - at))
    at += size
  }
}

/** What comes of a body: the file and its type, or the code of the refusal. */
async function read (body: Buffer, { contentType = FORM, sizes }: { contentType?: string, sizes?: readonly number[] } = {}) {
  try {
    const { declaredType, chunks } = await readFilePart(contentType, inChunks(body, sizes))
    return { declaredType, content: await buffer(chunks) }
  } catch (error) {
    if (error instanceof AppError) return error.code
    throw error
  }
}

/** The same from a parser that others wrote: all parts, in their order. */
const judge = fastify()
await judge.register(multipart, { isPartAFile: () => true, limits: { fileSize: 10_000_000, parts: 1000 } })
judge.post('/', async request => {
  const parts = []
  for await (const part of request.parts()) {
    if (part.type === 'file') parts.push({ name: part.fieldname, type: part.mimetype, content: (await part.toBuffer()).toString('base64') })
  }
  return parts
})
t.teardown(async () => { await judge.close() })

async function judged (body: Buffer, contentType = FORM): Promise<Array<{ name: string, content: Buffer, type: string }>> {
  const { statusCode, payload } = await judge.inject({ method: 'POST', url: '/', headers: { 'content-type': contentType }, payload: body })
  if (statusCode !== 200) throw new Error(`the judge answers ${statusCode}: ${payload}`)
  const parts: Array<{ name: string, content: string, type: string }> = JSON.parse(payload)
  return parts.map(({ name, content, type }) => ({ name, type, content: Buffer.from(content, 'base64') }))
}

t.test('the real recorder\'s bodies give the file and the two bytes that it adds, however they are cut', async t => {
  const contentType = 'multipart/form-data; boundary="simple boundary"'
  for (const name of ['flexisip-voicemail-0.27s', 'flexisip-voicemail-8.6s']) {
    const body = await sample(`ok/${name}.multipart`)
    const content = bytes(await sample(`ok/${name}.wav`), CRLF)
    for (const sizes of [[body.length], [1448], [17, 1, 4096], ...body.length < 10_000 ? [[1], [2], [3]] : []]) {
      t.strictSame(await read(body, { contentType, sizes }), { declaredType: 'audio/wav', content }, `${name} in chunks of ${sizes.join()}`)
    }
    t.strictSame((await judged(body, contentType)).map(({ name, content }) => ({ name, content })), [{ name: 'file', content }])
  }
})

t.test('the first part named file counts, with or without a filename, and the others are skipped', async t => {
  const other = Buffer.from('other')
  const nameless = part(AUDIO, 'Content-Disposition: form-data; name="file"')
  const prototypes = ['constructor', '__proto__', 'hasOwnProperty', 'toString'].map(name => field(name))
  for (const [title, parts] of Object.entries<Part[]>({
    alone: [file()],
    'without a filename': [nameless],
    'before others': [file(), field('a'), file(other)],
    'behind others': [field('a'), field('files', 'x'), field('File'), part(other, 'Content-Type: audio/wav'), part(other), part(other, 'Content-Disposition: attachment; name="file"'), file(), nameless],
    'among names that every object has': [...prototypes, file(), ...prototypes],
    'with headers that every object has': [part(AUDIO, '__proto__: x', 'constructor: y', ...nameless.headers)],
    'among empty parts': [field('a', ''), part(''), file(), part(''), field('b', '')]
  })) {
    for (const sizes of [[10_000], [1], [5, 3]]) {
      t.match(await read(encode(parts), { sizes }), { content: AUDIO }, title)
    }
  }
  t.strictSame(await read(encode([nameless])), { declaredType: undefined, content: AUDIO })
})

t.test('an empty file is an empty file, whether a line break stands for its body or not', async t => {
  t.match(await read(encode([file(Buffer.alloc(0))])), { content: Buffer.alloc(0) })
  const [header] = field('file').headers
  const bare = bytes(`--frontier\r\n${header}\r\n\r\n--frontier--`)
  const bareOther = bytes(`--frontier\r\nContent-Disposition: form-data; name="a"\r\n\r\n--frontier\r\n${header}\r\n\r\nx\r\n--frontier--`)
  for (const sizes of [[1000], [1]]) {
    t.match(await read(bare, { sizes }), { content: Buffer.alloc(0) })
    t.match(await read(bareOther, { sizes }), { content: Buffer.from('x') })
  }
})

t.test('headers are read in any case, folded, quoted and with blanks around; names are not', async t => {
  for (const header of [
    'Content-Disposition: form-data; name="file"',
    'CONTENT-DISPOSITION:FORM-DATA;NAME=file',
    'content-disposition : form-data ; filename="x; name=\\"other\\"" ; name = "file" ',
    'Content-Disposition: form-data;\r\n\tname="file";\r\n  filename="x"',
    'Content-Disposition: form-data; filename="/var/opt/a b/ü.wav"; name="f\\ile"',
    'Content-Disposition: form-data; name="file"; name="other"; filename*=UTF-8\'\'x'
  ]) t.match(await read(encode([part(AUDIO, header)])), { content: AUDIO }, header)
  for (const header of [
    'Content-Disposition: form-data; name="FILE"', 'Content-Disposition: form-data; name=" file"', 'Content-Disposition: form-data; filename="file"',
    'Content-Disposition: form-data; x="; name=file"', 'Content-Disposition: file; name="file"', 'Content-Disposition: form-data', 'Content-Disposition', ': form-data; name="file"'
  ]) t.equal(await read(encode([part(AUDIO, header)])), 'file_part_missing', header)
  t.equal(await read(encode([])), 'file_part_missing')
  t.match(await read(encode([part(AUDIO, ...field('file').headers, 'content-TYPE:  Audio/OGG; codecs=opus ')])), { declaredType: 'Audio/OGG; codecs=opus' })
})

t.test('a boundary is taken as RFC 2046 allows it', async t => {
  for (const [parameter, boundary] of [
    ['boundary=frontier', 'frontier'], ['BOUNDARY="simple boundary"', 'simple boundary'], ['charset=utf-8; boundary=x ; a=b', 'x'], ['boundary="a;b=c"', 'a;b=c'],
    ["boundary=\"'()+_,-./:=? x\"", "'()+_,-./:=? x"], ['boundary=----WebKitFormBoundary7MA4', '----WebKitFormBoundary7MA4'], ['boundary=--', '--'],
    [`boundary=${'b'.repeat(70)}`, 'b'.repeat(70)], ['boundary="q\\"q"', 'q"q']
  ] as const) {
    for (const sizes of [[10_000], [1]]) {
      t.match(await read(encode([field('a'), file()], { boundary }), { contentType: `multipart/form-data; ${parameter}`, sizes }), { content: AUDIO }, parameter)
    }
  }
  for (const contentType of ['multipart/form-data', 'multipart/form-data; boundary', 'multipart/form-data; boundary=', 'multipart/form-data; boundary=""', 'multipart/form-data; x=boundary', `multipart/form-data; boundary=${'b'.repeat(201)}`]) {
    t.equal(await read(encode([file()]), { contentType }), 'malformed_multipart', contentType.slice(0, 60))
  }
})

t.test('bytes that look like the boundary belong to the audio, unless it is the whole of it', async t => {
  for (const content of [
    '--frontier', 'x--frontier--', '\r\n', '\r\n\r\n', '\r\n--', '\r\n--frontie', '\r\n--frontieR', '\n--frontier\n', '\r--frontier', '\r\n-frontier', '\r\n--\r\n--frontie\r\n--', '\r\r\n\r\n--fr\r\n',
    '\r\n--frontie'.repeat(500)
  ]) {
    for (const sizes of [[10_000], [1], [2, 3]]) {
      const whole = bytes('RIFF', content)
      t.match(await read(encode([field('a'), file(whole), field('b')]), { sizes }), { content: whole }, JSON.stringify(content.slice(0, 40)))
    }
  }
})

t.test('preamble, epilogue and blanks behind the boundary are passed over', async t => {
  for (const around of [{ preamble: 'This is a message in MIME.' }, { epilogue: 'bye\r\n--frontier\r\n' }, { padding: ' \t ' }, { preamble: '--frontie\r\n', epilogue: '\r\n', padding: ' ' }]) {
    for (const sizes of [[10_000], [1]]) t.match(await read(encode([field('a'), file()], around), { sizes }), { content: AUDIO }, JSON.stringify(around))
  }
})

t.test('a body without its end is malformed, wherever it is cut', async t => {
  const body = encode([field('a'), file(AUDIO.subarray(0, 50)), field('b')])
  const wrong: unknown[] = []
  for (let end = 0; end < body.length; end++) {
    for (const sizes of [[10_000], [1]]) {
      const outcome = await read(body.subarray(0, end), { sizes })
      if (outcome !== 'malformed_multipart') wrong.push([end, outcome])
    }
  }
  t.strictSame(wrong, [])
  t.match(await read(body), { content: AUDIO.subarray(0, 50) })
})

t.test('a body with line feeds alone, of another boundary, or of something else is malformed', async t => {
  const body = encode([file(Buffer.from('audio'))])
  t.equal(await read(Buffer.from(body.toString('latin1').replaceAll('\r\n', '\n'), 'latin1')), 'malformed_multipart')
  t.equal(await read(body, { contentType: 'multipart/form-data; boundary=other' }), 'malformed_multipart')
  t.equal(await read(body, { contentType: 'multipart/form-data; boundary=Frontier' }), 'malformed_multipart')
  t.equal(await read(await sample('ok/alaw-8k.wav')), 'malformed_multipart')
  t.equal(await read(Buffer.from('{"file":"x"}')), 'malformed_multipart')
})

t.test('what stands around the file is limited, wherever it stands, and the file is not', async t => {
  const large = Buffer.alloc(1_000_000, AUDIO)
  const much = 'x'.repeat(MAX_AROUND_BYTES - 1_000)
  const tooMuch = 'x'.repeat(MAX_AROUND_BYTES)
  for (const [title, around] of Object.entries<(stuff: string) => Buffer>({
    preamble: preamble => encode([file(large)], { preamble }),
    epilogue: epilogue => encode([file(large)], { epilogue }),
    'a part before': stuff => encode([field('a', stuff), file(large)]),
    'a part behind': stuff => encode([file(large), field('a', stuff)]),
    'a second file': stuff => encode([file(large), file(Buffer.from(stuff))]),
    'many parts': stuff => encode([...Array.from({ length: 64 }, () => field('a', stuff.slice(0, Math.floor(stuff.length / 64) - 60))), file(large), field('b', stuff.slice(0, stuff.length - much.length))])
  })) {
    t.match(await read(around(much)), { content: large }, title)
    t.equal(await read(around(tooMuch)), 'upload_too_large', title)
  }
  await t.rejects(readFilePart(FORM, inChunks(encode([field('a', tooMuch)]))), { code: 'upload_too_large', facts: { expected: MAX_AROUND_BYTES } })
})

t.test('there may be a hundred parts up to the file, and headers of 16 KiB in each', async t => {
  const others = Array.from({ length: 99 }, (_, index) => field(`f${index}`))
  t.match(await read(encode([...others, file()])), { content: AUDIO })
  t.equal(await read(encode([...others, field('one more'), file()])), 'malformed_multipart')
  t.match(await read(encode([file(), ...others, ...others])), { content: AUDIO }, 'behind it only their bytes count')
  t.equal(await read(encode([...others, field('last')])), 'file_part_missing')

  t.match(await read(encode([part(AUDIO, `X-Long: ${'x'.repeat(16_000)}`, ...file().headers)])), { content: AUDIO })
  t.equal(await read(encode([part(AUDIO, `X-Long: ${'x'.repeat(16_400)}`, ...file().headers)])), 'malformed_multipart')
})

t.test('headers that never end are refused where the limit is, not where the body ends', async t => {
  let sent = 0
  const endless = (async function * (): AsyncGenerator<Uint8Array> {
    yield Buffer.from('--frontier\r\n')
    for (;; sent += 100) yield Buffer.from(`X: ${'x'.repeat(95)}\r\n`)
  })()
  await t.rejects(readFilePart(FORM, endless), { code: 'malformed_multipart' })
  t.ok(sent < 20_000, `${sent} bytes`)
})

t.test('the file streams: its first bytes come before the body ends, and it ends only with the body', async t => {
  let goOn = (): void => {}
  const gate = new Promise<void>(resolve => { goOn = resolve })
  const whole = encode([file()])
  const body = (async function * (): AsyncGenerator<Uint8Array> {
    yield whole.subarray(0, 1_000)
    await gate
    yield whole.subarray(1_000)
    throw new AppError('body_incomplete', 'The body ended before its length.')
  })()
  const { chunks } = await readFilePart(FORM, body)
  const seen: Buffer[] = []
  await t.rejects((async () => {
    for await (const chunk of chunks) {
      seen.push(Buffer.from(chunk))
      goOn()
    }
  })(), { code: 'body_incomplete' }, 'the source\'s own error is passed on, behind the closing boundary too')
  t.ok(seen.length > 1)
  t.ok(Buffer.concat(seen).equals(AUDIO))
})

t.test('any parts, written by the book and cut anywhere, give the file that another parser finds', async t => {
  const boundaries = fc.string({ unit: fc.constantFrom(...'abcXYZ019\'()+_,-./:=?'), minLength: 1, maxLength: 70 })
  const pieces = fc.oneof(
    fc.uint8Array({ maxLength: 40 }).map(piece => Buffer.from(piece)),
    fc.constantFrom('\r\n', '\r', '\n', '\r\n--', '--', '\r\n\r\n').map(piece => Buffer.from(piece)),
    fc.nat(70).map(length => ({ length }))
  )
  const parts = fc.array(fc.record({
    name: fc.constantFrom('file', 'file', 'other', 'File', 'a b'),
    filename: fc.option(fc.constantFrom('x.wav', '/an/absolute path/x;y=z.wav', 'ü')),
    type: fc.option(fc.constantFrom('audio/wav', 'application/octet-stream', 'audio/ogg')),
    pieces: fc.array(pieces, { maxLength: 8 })
  }), { maxLength: 6 })
  const forms = fc.record({ boundary: boundaries, parts, sizes: fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 5 }) })
    .map(({ boundary, parts, sizes }) => ({
      boundary,
      sizes,
      parts: parts.map(({ name, filename, type, pieces }) => ({
        name,
        type: type ?? undefined,
        headers: [`Content-Disposition: form-data; name="${name}"${filename === null ? '' : `; filename="${filename}"`}`, ...type === null ? [] : [`Content-Type: ${type}`]],
        // The beginning of the delimiter is as good as any other bytes.
        content: Buffer.concat(pieces.map(piece => Buffer.isBuffer(piece) ? piece : Buffer.from(`\r\n--${boundary}`.slice(0, piece.length))))
      }))
    }))
    .filter(({ boundary, parts }) => !parts.some(({ content }) => bytes(CRLF, content).includes(`\r\n--${boundary}`)))

  await t.resolves(fc.assert(fc.asyncProperty(forms, async ({ boundary, parts, sizes }) => {
    const contentType = `multipart/form-data; boundary="${boundary}"`
    const body = encode(parts, { boundary })
    const outcome = await read(body, { contentType, sizes })
    const wanted = parts.find(({ name }) => name === 'file')
    if (wanted === undefined) return outcome === 'file_part_missing'
    const verdict = parts.length === 0 ? undefined : (await judged(body, contentType)).find(({ name }) => name === 'file')
    return typeof outcome === 'object' && outcome.content.equals(wanted.content) && outcome.declaredType === wanted.type &&
      verdict !== undefined && verdict.content.equals(outcome.content) && (wanted.type === undefined || verdict.type === wanted.type)
  }), { numRuns: 150 }))
})

t.test('any bytes at all are refused with one of the codes that a client may be told', async t => {
  const codes = ['malformed_multipart', 'file_part_missing', 'upload_too_large']
  const piece = fc.oneof(fc.string({ unit: 'binary', maxLength: 20 }), fc.constantFrom('--b', '\r\n--b', '\r\n', '--', '\r\n\r\n', 'Content-Disposition: form-data; name=file', ':', ' '))
  await t.resolves(fc.assert(fc.asyncProperty(fc.array(piece, { maxLength: 20 }), fc.integer({ min: 1, max: 9 }), async (pieces, size) => {
    const whole = await read(bytes(...pieces), { contentType: 'multipart/form-data; boundary=b' })
    const inPieces = await read(bytes(...pieces), { contentType: 'multipart/form-data; boundary=b', sizes: [size] })
    if (typeof whole === 'string' || typeof inPieces === 'string') return whole === inPieces && codes.includes(String(whole))
    return whole.content.equals(inPieces.content) && whole.declaredType === inPieces.declaredType
  }), { numRuns: 500 }))
})

t.test('a header value is read leniently, whatever it is', async t => {
  t.same(parseHeaderValue('  Form-Data ;name=file;; x ; NAME="second"; filename="a\\"b;c\\\\"; empty=""; e=;=v'), {
    value: 'form-data', parameters: new Map([['name', 'file'], ['filename', 'a"b;c\\'], ['empty', ''], ['e', '']])
  })
  t.same(parseHeaderValue(''), { value: '', parameters: new Map() })
  t.same(parseHeaderValue(';a=b'), { value: '', parameters: new Map([['a', 'b']]) })
  t.equal(parseHeaderValue('x; name="not closed').parameters.get('name'), '"not closed')
  t.equal(parseHeaderValue('x; __proto__=y').parameters.get('__proto__'), 'y')
  for (const hostile of [';a="', ';a="\\', '\\"', ';', '; ', ';a', ';a ', '="', '\t', ';a="\\";b="']) {
    t.type(parseHeaderValue(`x;a="${hostile.repeat(10_000)}`).value, 'string', JSON.stringify(hostile))
  }
  const names = fc.string({ unit: fc.constantFrom(...'abcxyz-*_.'), minLength: 1, maxLength: 8 })
  t.doesNotThrow(() => {
    fc.assert(fc.property(fc.uniqueArray(fc.tuple(names, fc.string({ unit: 'binary', maxLength: 20 })), { selector: ([name]) => name }), parameters => {
      const header = `form-data${parameters.map(([name, value]) => `; ${name}="${value.replace(/["\\]/g, '\\$&')}"`).join('')}`
      const found = [...parseHeaderValue(header).parameters]
      return JSON.stringify(found) === JSON.stringify(parameters)
    }), { numRuns: 200 })
  })
})

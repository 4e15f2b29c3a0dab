import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sample, startService, type Service } from '../helper.js'
import { DEPLOY, filesIn, reaching, run, settingsFile, voicemailsOf, type Ended } from './scripts.js'

const UPLOAD = join(DEPLOY, 'voicemail-upload')
const TO = 'sip:bob@sip.example.org'
const FROM = 'sip:alice@sip.example.org'

/** A spool with one recording of Alice's for Bob, and the script. */
async function spool (t: Test, settings: Record<string, string>, name = 'hello.wav', bytes?: Buffer) {
  // The service's data are in the test's folder, which a second testdir() would empty.
  const folder = await mkdtemp(join(t.testdirName, 'pbx-'))
  await mkdir(join(folder, 'spool'))
  const file = join(folder, 'spool', name)
  await writeFile(file, bytes ?? await sample(name.endsWith('.opus') ? 'ok/speech-24k.opus' : 'ok/pcm16-16k.wav'))
  const env = await settingsFile(folder, settings)
  return {
    folder: join(folder, 'spool'),
    file,
    env,
    upload: async (...args: string[]): Promise<Ended> => await run(UPLOAD, [...args, file], { env }),
    left: async () => await filesIn(join(folder, 'spool'))
  }
}

/** A server that stands where voicemaild is expected. */
async function serve (t: Test, listener: RequestListener): Promise<string> {
  const server = createServer(listener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => { server.close().closeAllConnections() })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('It does not listen.')
  return `http://127.0.0.1:${address.port}`
}

/** Passes everything to voicemaild, but for what `meddle` answers by itself. */
async function between (t: Test, service: () => Service, meddle: (...args: Parameters<RequestListener>) => boolean): Promise<string> {
  return await serve(t, (request, response) => {
    if (meddle(request, response)) return
    void (async () => {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk)
      const { method = 'GET', url = '/', headers } = request
      const forwarded = Object.fromEntries(['x-api-key', 'content-type'].flatMap(name => typeof headers[name] === 'string' ? [[name, headers[name]]] : []))
      const answer = await fetch(service().url + url, { method, headers: forwarded, ...chunks.length > 0 && { body: Buffer.concat(chunks) } })
      response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? '' }).end(await answer.text())
    })()
  })
}

t.test('a recording is stored for the account, with its caller, every byte of it, and deleted only where that was asked for', async t => {
  const service = await startService(t)
  const { id } = await service.addUser(TO)
  for (const name of ['hello.wav', 'HELLO.WAV', 'hello.opus', 'a name with [1-3] {a,b} "blanks" and $(quotes)\'.wav', '-T.wav']) {
    const { upload, left } = await spool(t, reaching(service), name)
    t.strictSame(await upload('--to', TO, '--from', FROM), { code: 0, out: '', err: '' }, name)
    t.strictSame(await left(), [name], 'it is still there')
    t.strictSame(await upload('--delete', '--to', 'bob@sip.example.org', '--from', '"Alice" <sip:alice@sip.example.org;tag=1>'), { code: 0, out: '', err: '' })
    t.strictSame(await left(), [], 'and is gone')
  }
  const stored = await voicemailsOf(service, id)
  t.equal(stored.length, 10)
  t.strictSame([...new Set(stored.map(({ from }) => from))], [FROM])
  for (const { type, bytes } of stored) t.ok(bytes.equals(await sample(type === 'audio/opus' ? 'ok/speech-24k.opus' : 'ok/pcm16-16k.wav')))
})

t.test('a file named from the folder that it is in is taken, too', async t => {
  const service = await startService(t)
  await service.addUser(TO)
  const { folder, env, left } = await spool(t, reaching(service), '-T.wav')
  t.match(await run(UPLOAD, ['--to', TO, '--from', FROM, '--delete', '--', '-T.wav'], { env, cwd: folder }), { code: 0 })
  t.strictSame(await left(), [])
})

t.test('whatever a caller says of itself is an address that is well-formed, and nothing more', async t => {
  const service = await startService(t)
  const { id } = await service.addUser(TO)
  const witness = await mkdtemp(join(t.testdirName, 'witness-'))
  const { upload } = await spool(t, { ...reaching(service), VOICEMAILD_DOMAIN: 'sip.example.org' })
  const cases = [
    ['1001', 'sip:1001@sip.example.org'],
    ['+4930123', 'sip:+4930123@sip.example.org'],
    ['"Alice" <1001>', 'sip:1001@sip.example.org'],
    ['tel:+4930123', 'sip:+4930123@sip.example.org'],
    ['SIPS:alice@[2001:db8::1]:5061;transport=tls', 'sips:alice@[2001:db8::1]:5061'],
    ['sip:gateway.example.org', 'sip:gateway.example.org'],
    ['sip:alice:secret@sip.example.org', 'sip:alice@sip.example.org'],
    ['sip:al%20ice@sip.example.org', 'sip:al%20ice@sip.example.org'],
    ['', 'sip:anonymous@anonymous.invalid'],
    ['"Alice" <>', 'sip:anonymous@anonymous.invalid'],
    ['sip:alice@', 'sip:anonymous@anonymous.invalid'],
    ['sip:alice@a b', 'sip:anonymous@anonymous.invalid'],
    ['sip:alice@1.2.3', 'sip:anonymous@anonymous.invalid'],
    [`"; touch ${witness}/a; "`, `sip:%22%3B%20touch%20${encodeURIComponent(witness)}%2Fa%3B%20%22@sip.example.org`],
    [`$(touch ${witness}/b)`, `sip:%24%28touch%20${encodeURIComponent(witness)}%2Fb%29@sip.example.org`],
    [`\`touch ${witness}/c\`@sip.example.org`, `sip:%60touch%20${encodeURIComponent(witness)}%2Fc%60@sip.example.org`],
    ['a","content_type":"audio/opus","x":"@sip.example.org', 'sip:a%22%2C%22content_type%22@sip.example.org'],
    ['a\\"@sip.example.org', 'sip:a%5C%22@sip.example.org'],
    ['alice\r\nx-api-key: y\n@sip.example.org', 'sip:alicex-api-key@sip.example.org'],
    ['../../etc/passwd@sip.example.org', 'sip:..%2F..%2Fetc%2Fpasswd@sip.example.org'],
    ['алиса@sip.example.org', `sip:${encodeURIComponent('алиса')}@sip.example.org`],
    [`${'7'.repeat(5000)}@sip.example.org`, `sip:${'7'.repeat(200)}@sip.example.org`],
    ['--delete', 'sip:--delete@sip.example.org']
  ]
  for (const [from = ''] of cases) t.match(await upload('--to', TO, '--from', from), { code: 0 }, JSON.stringify(from.slice(0, 80)))
  t.strictSame((await voicemailsOf(service, id)).map(({ from }) => from), cases.map(([, uri]) => uri))
  t.strictSame(await filesIn(witness), [], 'nothing was run')
})

t.test('the address of who is called goes into a URL and cannot leave its place there', async t => {
  const service = await startService(t)
  const { upload, left } = await spool(t, reaching(service))
  // All of this may stand in the user part of a SIP URI (RFC 3261 section 25.1), an escape too.
  const odd = await service.addUser("sip:a/b?c;d=e&f$g+h,i*j'k(l)%23@sip.example.org")
  t.match(await upload('--to', "sip:a/b?c;d=e&f$g+h,i*j'k(l)%23@sip.example.org", '--from', FROM), { code: 0 })
  t.equal((await voicemailsOf(service, odd.id)).length, 1)
  for (const to of ['../../../health/live@x.example.org', 'bob@sip.example.org/../../../ping?', 'bob@sip.example.org#', '"$(id)"@sip.example.org', 'bob%40@sip.example.org']) {
    t.match(await upload('--to', to, '--from', FROM), { code: 67, err: /404: / }, to)
  }
  for (const to of ['', 'bob', '..', '@sip.example.org', 'bob@sip.example.org\nx-api-key: z']) t.match(await upload('--to', to, '--from', FROM), { code: 64, err: /--to wants/ }, JSON.stringify(to))
  t.strictSame(await left(), ['hello.wav'])
})

t.test('an account that is not there is told, or added where the settings say so', async t => {
  const service = await startService(t)
  const { upload, env, file, left } = await spool(t, reaching(service))
  t.match(await upload('--to', TO, '--from', FROM, '--delete'), { code: 67, err: /sip:bob@sip\.example\.org: the account was not found: 404: / })
  t.strictSame(await left(), ['hello.wav'])
  t.match(await run(UPLOAD, ['--to', TO, '--from', FROM, '--delete', file], { env: { ...env, VOICEMAILD_CREATE_ACCOUNTS: 'yes' } }), { code: 0 })
  t.strictSame(await left(), [])
  t.match((await service.call('GET', '/accounts')).body, [{ sip_uri: TO, voicemails: { total: 1 } }])
})

t.test('a server that is down keeps the recording, and the next run uploads it', async t => {
  const gone = await startService(t)
  const { upload, env, file, left } = await spool(t, reaching(gone))
  await gone.close()
  t.match(await upload('--to', TO, '--from', FROM, '--delete'), { code: 69, err: /no answer: .+/ })
  t.strictSame(await left(), ['hello.wav'])
  const service = await startService(t, { settings: { DATA_DIR: join(t.testdirName, 'another') } })
  const { id } = await service.addUser(TO)
  t.match(await run(UPLOAD, ['--to', TO, '--from', FROM, '--delete', file], { env: { ...env, ...reaching(service) } }), { code: 0 })
  t.strictSame(await left(), [])
  t.equal((await voicemailsOf(service, id)).length, 1)
})

t.test('it tries again after no answer and after a 5xx, as often as the settings say', async t => {
  const service = await startService(t)
  const { id } = await service.addUser(TO)
  const failures = new Map<string, number>()
  const url = await between(t, () => service, ({ method = '', socket }, response) => {
    const failed = failures.get(method) ?? 0
    failures.set(method, failed + 1)
    if (failed === 0) response.writeHead(503, { 'content-type': 'application/problem+json' }).end('{"detail":"The server is stopping."}')
    else if (failed === 1) socket.destroy()
    return failed < 2
  })
  const { upload, left } = await spool(t, { ...reaching({ ...service, url }), VOICEMAILD_RETRY_SECONDS: '0.01 0.01' })
  t.match(await upload('--to', TO, '--from', FROM, '--delete'), { code: 0 })
  t.strictSame(Object.fromEntries(failures), { GET: 3, POST: 3 })
  t.strictSame(await left(), [])
  t.equal((await voicemailsOf(service, id)).length, 1)

  const refused = await spool(t, { ...reaching({ ...service, url: await serve(t, (_request, response) => { response.writeHead(502).end('<html>') }) }) })
  t.match(await refused.upload('--to', TO, '--from', FROM, '--delete'), { code: 69, err: /502: no problem told/ })
  t.strictSame(await refused.left(), ['hello.wav'])
})

t.test('a recording whose answer was lost is one voicemail after the next run', async t => {
  let losing = true
  const service: Service = await startService(t, {
    settings: {
      PUBLIC_URL: await between(t, () => service, ({ method, url = '' }, response) => {
        if (method !== 'PUT' || !losing) return false
        // Stored, but the sender never hears of it.
        void (async () => {
          const name = url.slice(url.lastIndexOf('/'))
          await fetch(`${service.url}/uploads${name}`, { method: 'PUT', body: await sample('ok/pcm16-16k.wav') })
          response.destroy()
        })()
        return true
      })
    }
  })
  const { id } = await service.addUser(TO)
  const { upload, left } = await spool(t, reaching(service))
  t.match(await upload('--to', TO, '--from', FROM, '--delete'), { code: 69 })
  t.strictSame(await left(), ['.hello.wav.slot', 'hello.wav'])
  losing = false
  t.match(await upload('--to', TO, '--from', FROM, '--delete'), { code: 0 })
  t.strictSame(await left(), [])
  t.equal((await service.call('GET', `/accounts/${id}/voicemails`)).body.length, 1, 'and no open slot beside it')
})

t.test('a slot is remembered for one recording, and until it is gone', async t => {
  const service = await startService(t)
  const { id } = await service.addUser(TO)
  const { upload, file, left } = await spool(t, reaching(service), 'hello.wav', await sample('bad/mp3-named.wav'))
  t.match(await upload('--to', TO, '--from', FROM), { code: 65, err: /415: / })
  t.match(await upload('--to', TO, '--from', FROM), { code: 65, err: /415: / })
  t.equal((await service.call('GET', `/accounts/${id}/voicemails`)).body.length, 1, 'the same slot twice')
  t.match(await upload('--to', TO, '--from', 'sip:carol@sip.example.org'), { code: 65 })
  t.strictSame((await service.call('GET', `/accounts/${id}/voicemails`)).body.map(({ sip_from: from }: { sip_from: string }) => from), ['sip:carol@sip.example.org', FROM])
  for (const { id: uuid } of (await service.call('GET', `/accounts/${id}/voicemails`)).body) await service.call('DELETE', `/accounts/${id}/voicemails/${uuid}`)
  await writeFile(file, await sample('ok/pcm16-16k.wav'))
  t.match(await upload('--to', TO, '--from', FROM, '--delete'), { code: 0 })
  t.strictSame(await left(), [])
  t.match(await voicemailsOf(service, id), [{ from: FROM }])
})

t.test('audio that is none is refused with the reason, and stays', async t => {
  const service = await startService(t)
  await service.addUser(TO)
  for (const name of ['empty.wav', 'mp3-named.wav', 'html-named.wav', 'vorbis-named.opus', 'header-without-samples.wav']) {
    const { upload, left } = await spool(t, reaching(service), name, await sample(`bad/${name}`))
    t.match(await upload('--to', TO, '--from', FROM, '--delete'), { code: 65, err: /415: \S.*\S/ }, name)
    t.strictSame((await left()).filter(file => !file.endsWith('.slot')), [name])
  }
  const { upload, left } = await spool(t, reaching(service), 'hello.gsm', Buffer.alloc(33))
  t.match(await upload('--to', TO, '--from', FROM, '--delete'), { code: 65, err: /none of \.wav/ })
  t.strictSame(await left(), ['hello.gsm'])
})

t.test('a recording that is too large, a quota and a full disk are told apart', async t => {
  const small = await startService(t, { settings: { MAX_UPLOAD_SIZE: '1024' } })
  await small.addUser(TO)
  const large = await spool(t, reaching(small))
  t.match(await large.upload('--to', TO, '--from', FROM, '--delete'), { code: 65, err: /413: / })
  t.strictSame(await large.left(), ['.hello.wav.slot', 'hello.wav'])

  for (const [name, value] of [['MIN_FREE_DISK', String(Number.MAX_SAFE_INTEGER)], ['ACCOUNT_QUOTA_BYTES', '1000']] as const) {
    const full = await startService(t, { settings: { [name]: value, DATA_DIR: join(t.testdirName, name) } })
    await full.addUser(TO)
    const { upload, left } = await spool(t, { ...reaching(full), VOICEMAILD_RETRY_SECONDS: '600' })
    t.match(await upload('--to', TO, '--from', FROM, '--delete'), { code: 75, err: /no slot was opened: 507: / }, name)
    t.strictSame(await left(), ['hello.wav'])
  }
})

t.test('of two runs for one recording at once one uploads it, and the other says so', async t => {
  const service = await startService(t)
  const { id } = await service.addUser(TO)
  const { upload, left } = await spool(t, reaching(service))
  const both = await Promise.all([upload('--to', TO, '--from', FROM, '--delete'), upload('--to', TO, '--from', FROM, '--delete')])
  const [first, second] = both.sort((a, b) => a.code - b.code)
  t.match(first, { code: 0 })
  // The second may have come when all was over.
  t.match(second, { err: /being uploaded already|taken away meanwhile|no file that can be read/ })
  t.ok(second?.code === 75 || second?.code === 64)
  t.strictSame(await left(), [])
  t.equal((await voicemailsOf(service, id)).length, 1)
})

t.test('an answer that is not voicemaild\'s deletes nothing', async t => {
  const service = await startService(t)
  await service.addUser(TO)
  for (const [body, code] of [['<html>signed in</html>', 69], ['{"id":7,"upload_url":"file:///etc/passwd"}', 69]] as const) {
    const url = await serve(t, (request, response) => { response.writeHead(request.method === 'POST' ? 201 : 200).end(body) })
    const { upload, left } = await spool(t, reaching({ ...service, url }))
    t.match(await upload('--to', TO, '--from', FROM, '--delete'), { code, err: /does not answer as voicemaild does/ })
    t.strictSame(await left(), ['hello.wav'])
  }
  const url: string = await serve(t, ({ method }, response) => {
    if (method === 'GET') response.end('{"id":7}')
    else if (method === 'POST') response.writeHead(201).end(`{"id":"x","upload_url":"${url}/uploads/x"}`)
    else response.end('{"status":"stored","sha256":"0000"}')
  })
  const { upload, left } = await spool(t, reaching({ ...service, url }))
  t.match(await upload('--to', TO, '--from', FROM, '--delete'), { code: 75, err: /not that of a voicemail stored/ })
  t.strictSame(await left(), ['.hello.wav.slot', 'hello.wav'])
  const elsewhere = await spool(t, reaching({ ...service, url: await serve(t, (_request, response) => { response.writeHead(404).end('<html>') }) }))
  t.match(await elsewhere.upload('--to', TO, '--from', FROM), { code: 69 }, 'a 404 of another server says nothing of an account')
})

t.test('a wrong key is told, and so are wrong settings and wrong arguments', async t => {
  const service = await startService(t)
  const { upload, env, file, folder } = await spool(t, reaching(service))
  const args = ['--to', TO, '--from', FROM, file]
  t.match(await run(UPLOAD, args, { env: { ...env, VOICEMAILD_API_KEY: 'x"\\$(id)'.padEnd(40, 'y') } }), { code: 77, err: /401: / })
  t.match(await run(UPLOAD, args, { env: { ...env, VOICEMAILD_API_KEY: 'two\nlines' } }), { code: 78, err: /VOICEMAILD_API_KEY/ })
  t.match(await run(UPLOAD, args, { env: { ...env, VOICEMAILD_URL: 'ftp://127.0.0.1' } }), { code: 78, err: /VOICEMAILD_URL/ })
  t.match(await run(UPLOAD, args, { env: { ...env, VOICEMAILD_RETRY_SECONDS: '1; id' } }), { code: 78, err: /VOICEMAILD_RETRY_SECONDS/ })
  t.match(await upload(), { code: 64, err: /--to wants/ })
  t.match(await upload('--to', TO, '--shout'), { code: 64, err: /no option --shout/ })
  t.match(await run(UPLOAD, ['--to', TO], { env }), { code: 64, err: /usage/ })
  t.match(await run(UPLOAD, ['--to', TO, join(folder, 'none.wav')], { env }), { code: 64, err: /no file/ })
  await mkdir(join(folder, 'folder.wav'))
  t.match(await run(UPLOAD, ['--to', TO, join(folder, 'folder.wav')], { env }), { code: 64, err: /no file/ })
  for (const [line, err] of [['VOICEMAILD_PASSWORD=x', /no setting VOICEMAILD_PASSWORD/], ['rm -rf $HOME', /a line that is no/], ['VOICEMAILD_URL[$(id)]=x', /a line that is no/]] as const) {
    const wrong = join(folder, 'wrong.env')
    await writeFile(wrong, line)
    t.match(await run(UPLOAD, args, { env: { VOICEMAILD_UPLOAD_ENV: wrong } }), { code: 78, err }, line)
  }
})

t.test('the key can stand in a file of its own, is never on a command line, and never printed', async t => {
  const service = await startService(t)
  await service.addUser(TO)
  const folder = await mkdtemp(join(t.testdirName, 'own-'))
  await mkdir(join(folder, 'bin'))
  const keyFile = join(folder, 'key')
  await writeFile(keyFile, service.adminKey)
  const { file, env } = await spool(t, { VOICEMAILD_URL: service.url, VOICEMAILD_API_KEY_FILE: `"${keyFile}"` })
  // A curl that notes what anybody could see of it.
  const curl = join(folder, 'bin', 'curl')
  await writeFile(curl, `#!/bin/bash\nprintf '%s\\n' "$*" >> '${folder}/seen'\nPATH=\${PATH#*:} exec curl "$@"\n`)
  await chmod(curl, 0o755)
  const { code, out, err } = await run(UPLOAD, ['--to', TO, '--from', FROM, file], { env: { ...env, PATH: `${folder}/bin:${process.env['PATH']}` } })
  t.strictSame([code, out, err], [0, '', ''])
  const { out: seen } = await run('cat', [join(folder, 'seen')])
  t.equal(seen.trim().split('\n').length, 3, 'three requests')
  t.notMatch(seen, service.adminKey)
  t.notMatch(seen, /uploads|alice/)
  t.match(await run(UPLOAD, ['--setting', 'VOICEMAILD_URL'], { env }), { code: 0, out: `${service.url}\n` })
  t.match(await run(UPLOAD, ['--setting', 'VOICEMAILD_API_KEY'], { env: { ...env, VOICEMAILD_API_KEY: service.adminKey } }), { code: 64, out: '' })
})

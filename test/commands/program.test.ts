import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { runProgram } from '../../src/commands/program.js'
import { sample, startService, type Json, type Testing } from '../helper.js'

interface Run { code: number, out: string, err: string }

/** Runs command lines on a data folder, at a fixed moment unless another clock is given. */
function commands (dataFolder: string, clock: () => number = () => Date.parse('2026-01-02T03:04:05Z')) {
  const run = async (...args: string[]): Promise<Run> => {
    const out: string[] = []
    const err: string[] = []
    const code = await runProgram({
      args,
      env: { DATA_DIR: dataFolder },
      clock,
      output: { print: line => { out.push(line) }, tell: line => { err.push(line) } }
    })
    return { code, out: out.join('\n'), err: err.join('\n') }
  }
  return {
    run,
    /** Runs one that must succeed, and reads its JSON. */
    json: async (...args: string[]): Promise<Json> => {
      const { code, out, err } = await run(...args, '--json')
      if (code !== 0 || err !== '') throw new Error(`${args.join(' ')}: ${code} ${err}`)
      return JSON.parse(out)
    }
  }
}

const folderOf = (t: Testing): string => join(t.testdir(), 'data')

t.test('accounts are added, listed, shown and removed', async t => {
  const { run, json } = commands(folderOf(t))
  t.strictSame(await json('account', 'list'), [])
  const bob = await json('account', 'add', 'bob@sip.example.org', '--email', 'bob@example.org', '--display-name', 'Bob  Büß')
  t.strictSame(bob, {
    id: 1,
    sip_uri: 'sip:bob@sip.example.org',
    username: 'bob',
    domain: 'sip.example.org',
    email: 'bob@example.org',
    display_name: 'Bob  Büß',
    created_at: '2026-01-02T03:04:05Z',
    call_forwardings: [],
    voicemails: { total: 0, unread: 0 }
  })
  const carol = await json('account', 'add', 'sips:carol@sip.example.org')
  t.match(carol, { id: 2, email: null, display_name: null })
  t.strictSame(await json('account', 'list'), [carol, bob], 'newest first')
  for (const way of ['1', 'bob@sip.example.org', 'sip:bob@SIP.example.ORG']) t.strictSame(await json('account', 'show', way), bob, way)

  const { out } = await run('account', 'list')
  t.strictSame(out.split('\n').map(line => line.split(/ {2,}/)), [
    ['id', 'sip_uri', 'email', 'display_name', 'voicemails', 'unread', 'created_at'],
    ['2', 'sips:carol@sip.example.org', '-', '-', '0', '0', '2026-01-02T03:04:05Z'],
    ['1', 'sip:bob@sip.example.org', 'bob@example.org', 'Bob', 'Büß', '0', '0', '2026-01-02T03:04:05Z']
  ], 'a table for people')
  t.match(await run('account', 'show', '2'), { code: 0, out: /^id .*\n2 /, err: '' })
  t.match(await run('account', 'add', 'dave@sip.example.org'), { code: 0, out: /^id .*\n3 +sip:dave@sip\.example\.org/, err: '' })

  t.strictSame(await json('account', 'remove', 'carol@sip.example.org'), { id: 2, deleted: true })
  t.strictSame(await run('account', 'remove', '3'), { code: 0, out: 'Removed account 3 (sip:dave@sip.example.org) with 0 voicemails.', err: '' })
  t.strictSame((await json('account', 'list')).map(({ id }: Json) => id), [1])
})

t.test('a list is longer than a page', async t => {
  const folder = folderOf(t)
  const file = join(t.testdir(), 'many.csv')
  await writeFile(file, Array.from({ length: 1001 }, (_, at) => `sip:u${at}@sip.example.org\n`).join(''))
  const { json } = commands(folder)
  t.strictSame(await json('account', 'import', file), { added: 1001, known: 0, refused: [] })
  t.strictSame((await json('account', 'list')).map(({ id }: Json) => id), Array.from({ length: 1001 }, (_, at) => 1001 - at), 'in the order of the file')
})

t.test('what cannot be done ends with code 1 and one line', async t => {
  const { run, json } = commands(folderOf(t))
  await json('account', 'add', 'bob@sip.example.org')
  for (const [args, sentence] of [
    [['account', 'add', 'sip:bob@SIP.EXAMPLE.ORG'], /^voicemaild: There is an account with this address already\.$/],
    [['account', 'add', 'mailto:bob@example.org'], /^voicemaild: sip_uri must be the SIP address of a user/],
    [['account', 'add', 'sip:bob@example.org;transport=tcp'], /^voicemaild: sip_uri must be the SIP address of a user/],
    [['account', 'add', 'sip:example.org'], /^voicemaild: sip_uri must be/],
    [['account', 'add', 'eve@sip.example.org', '--email', 'no address'], /^voicemaild: email must match format "email"\.$/],
    [['account', 'add', 'eve@sip.example.org', '--display-name', 'x'.repeat(201)], /^voicemaild: display_name must NOT have more than 200 characters\.$/],
    [['account', 'show', '77'], /^voicemaild: There is no such account\.$/],
    [['account', 'show', 'nobody@sip.example.org'], /^voicemaild: There is no such account\.$/],
    [['account', 'show', '../../etc/passwd'], /^voicemaild: There is no such account\.$/],
    [['account', 'remove', '77'], /^voicemaild: There is no such account\.$/],
    [['account', 'import', '/nowhere/at/all.csv'], /^voicemaild: \/nowhere\/at\/all\.csv: cannot be read\.$/],
    [['key', 'add', '--name', 'x', '--account', '77'], /^voicemaild: There is no such account\.$/],
    [['key', 'add', '--name', '', '--account', '1'], /^voicemaild: name must NOT have fewer than 1 characters\.$/],
    [['key', 'list', '--account', '77'], /^voicemaild: There is no such account\.$/],
    [['key', 'remove', '77'], /^voicemaild: There is no such key\.$/],
    [['key', 'remove', 'x'], /^voicemaild: There is no such key\.$/],
    [['--env-file', '/nowhere/env', 'account', 'list'], /^voicemaild: --env-file: \/nowhere\/env cannot be read\.$/]
  ] as const) {
    const { code, out, err } = await run(...args)
    t.match({ code, out }, { code: 1, out: '' }, args.join(' '))
    t.match(err, sentence)
    t.notMatch(err, /\n/, 'one line')
  }
  t.strictSame((await json('account', 'list')).length, 1, 'nothing was added')
  t.strictSame(await json('key', 'list'), [])
})

t.test('what cannot be understood ends with code 2 and one line that tells what is expected, and touches nothing', async t => {
  const folder = folderOf(t)
  const { run } = commands(folder)
  for (const [args, sentence] of [
    [['frobnicate'], /^voicemaild: unknown command 'frobnicate', expected one of serve, account, key\b/],
    [['serv'], /^voicemaild: unknown command 'serv' .*serve.*, expected one of serve, account, key\b/],
    [['account', 'ad'], /^voicemaild: unknown command 'ad'.* expected one of add, list, show, remove, import\b/],
    [['key', 'frob'], /^voicemaild: unknown command 'frob', expected one of add, list, remove\b/],
    [['--frob'], /^voicemaild: unknown option '--frob', expected one of .*--env-file/],
    [['serve', '--frob'], /^voicemaild: unknown option '--frob', expected one of --help/],
    [['account', 'list', '--jsn'], /^voicemaild: unknown option '--jsn' .*, expected one of --json, --help/],
    [['account', 'add'], /^voicemaild: missing required argument 'sip-uri'/],
    [['account', 'import'], /^voicemaild: missing required argument 'file.csv'/],
    [['account', 'add', 'a@b.example', 'c@d.example'], /^voicemaild: too many arguments for 'add'\. Expected 1 argument but got 2\./],
    [['serve', 'now'], /^voicemaild: too many arguments for 'serve'/],
    [['account', 'add', 'a@b.example', '--email'], /^voicemaild: option '--email <address>' argument missing/],
    [['--env-file'], /^voicemaild: option '--env-file <file>' argument missing/],
    [['key', 'add', '--account', '1'], /^voicemaild: required option '--name <name>' not specified/],
    [['key', 'add', '--name', 'x', '--role', 'root'], /^voicemaild: option '--role <role>' argument 'root' is invalid\. Allowed choices are admin, user\./],
    [['key', 'add', '--name', 'x'], /^voicemaild: --account: a key with the role user needs one\.$/],
    ...['soon', '1', '31.01.2027', '2027-02-31', '2027-13-01', '2027-01-31T25:00:00Z', '2027-01-31T18:00:00', ''].map((date): [string[], RegExp] =>
      [['key', 'add', '--name', 'x', '--role', 'admin', '--expires', date], /^voicemaild: --expires: expected a date in UTC such as 2027-01-31 or 2027-01-31T18:00:00Z, found "[^"]*"\.$/])
  ] as Array<[string[], RegExp]>) {
    const { code, out, err } = await run(...args)
    t.match({ code, out }, { code: 2, out: '' }, args.join(' '))
    t.match(err, sentence)
    t.notMatch(err, /\n/, 'one line')
  }
  t.match(await run(), { code: 2, out: '', err: /^Usage: voicemaild .*\n[^]*serve[^]*account[^]*key/ }, 'nothing at all gets the help')
  t.match(await run('account'), { code: 2, out: '', err: /^Usage: voicemaild account / })
  await t.rejects(readdir(folder), { code: 'ENOENT' }, 'no data folder was made')
})

t.test('a wrong setting ends every command with code 2 and the line of that setting', async t => {
  const lines: string[] = []
  const code = await runProgram({ args: ['account', 'list'], env: { PORT: 'x', DATA_DIR: folderOf(t) }, clock: Date.now, output: { print: line => { lines.push(line) }, tell: line => { lines.push(line) } } })
  t.strictSame([code, ...lines], [2, 'voicemaild: PORT: expected a whole number from 0 to 65535, found "x".'])
})

t.test('help and version go to standard output', async t => {
  const { run } = commands(folderOf(t))
  const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8'))
  for (const flag of ['--version', '-V']) t.strictSame(await run(flag), { code: 0, out: `voicemaild ${version} (Node ${process.version})`, err: '' })
  for (const args of [['--help'], ['-h'], ['help']]) t.match(await run(...args), { code: 0, out: /^Usage: voicemaild .*\n[^]*serve[^]*account[^]*key/, err: '' })
  t.match(await run('account', '--help'), { code: 0, out: /add .*[^]*list .*[^]*show .*[^]*remove .*[^]*import /, err: '' })
  t.match(await run('key', 'add', '--help'), { code: 0, out: /--name[^]*--role[^]*--account[^]*--expires[^]*--json/, err: '' })
})

t.test('a settings file is read, and the environment goes before it', async t => {
  const folder = t.testdir({ env: 'MAX_UPLOAD_SIZE="no number" # whatever\nDATA_DIR=/nowhere/at/all\n' })
  const { run } = commands(join(folder, 'data'))
  t.strictSame(await run('--env-file', join(folder, 'env'), 'account', 'list', '--json'), {
    code: 2, out: '', err: 'voicemaild: MAX_UPLOAD_SIZE: expected a whole number from 1024 to 2147483647, found "no number".'
  })
  await writeFile(join(folder, 'env'), '# a comment\nDATA_DIR=/nowhere/at/all\nMAX_UPLOAD_SIZE=2000\n')
  t.strictSame(await run('--env-file', join(folder, 'env'), 'account', 'list', '--json'), { code: 0, out: '[]', err: '' })
})

t.test('subscribers are imported from CSV', async t => {
  const folder = folderOf(t)
  const { run, json } = commands(folder)
  const file = join(t.testdir(), 'subscribers.csv')
  const importing = async (csv: string | Buffer, ...flags: string[]): Promise<Run> => {
    await writeFile(file, csv)
    return await run('account', 'import', file, ...flags)
  }
  const counts = (added: number, known = 0): Run => ({ code: 0, out: `${added} added, ${known} known, 0 refused`, err: '' })
  const find = async (address: string): Promise<[email: string | null, displayName: string | null]> => {
    const { email, display_name: displayName } = await json('account', 'show', address)
    return [email, displayName]
  }

  t.strictSame(await importing('sip:a1@sip.example.org,a1@example.org,A One\nb1@sip.example.org\nc1@sip.example.org,,C One'), counts(3), 'without a header')
  t.strictSame(await find('a1@sip.example.org'), ['a1@example.org', 'A One'])
  t.strictSame(await find('b1@sip.example.org'), [null, null])
  t.strictSame(await find('c1@sip.example.org'), [null, 'C One'])

  t.strictSame(await importing('display_name,note,sip_uri\n"Two, A",x,a2@sip.example.org\n'), counts(1), 'with a header in its own order')
  t.strictSame(await find('a2@sip.example.org'), [null, 'Two, A'])

  t.strictSame(await importing('\ufeffsip_uri,email,display_name\r\na3@sip.example.org,a3@example.org,"Ä ""Three"""\r\n\r\nb3@sip.example.org,,\r\n,,\r\n'), counts(2), 'with BOM, CR LF and blank lines')
  t.strictSame(await find('a3@sip.example.org'), ['a3@example.org', 'Ä "Three"'])
  t.strictSame(await importing('\ufeffa4@sip.example.org\r\nb4@sip.example.org\nc4@sip.example.org'), counts(3), 'with BOM, without header, with mixed line ends')

  t.strictSame(await importing('a1@SIP.example.org,new@example.org\na5@sip.example.org\nsip:a5@sip.example.org\n'), counts(1, 2), 'those known, in the file too, are told')
  t.strictSame(await find('a1@sip.example.org'), ['a1@example.org', 'A One'], 'and stay as they were')

  for (const empty of ['', '\n\r\n', '\ufeff', 'sip_uri,email,display_name\n', ',,\n']) t.strictSame(await importing(empty), counts(0), JSON.stringify(empty))

  const bad = [
    'sip_uri,email,display_name', // 1
    'mailto:a6@example.org', // 2
    'a6@sip.example.org,a6@example.org,"A', // 3, with a line end in quotes
    'Six"',
    '', // 5
    'b6@sip.example.org,no address,B Six', // 6
    ',c6@example.org,C Six', // 7
    `d6@sip.example.org,,${'x'.repeat(201)}`, // 8
    'e6@sip.example.org', // 9
    '"f6@', // 10 and 11
    'example.org"',
    'g6@sip.example.org;transport=tcp' // 12
  ].join('\r\n')
  const { code, out, err } = await importing(bad)
  t.match({ code, err }, { code: 1, err: '' })
  const lines = out.split('\n')
  t.equal(lines.pop(), '2 added, 0 known, 6 refused')
  t.strictSame(lines.map(line => line.slice(0, file.length + 1) === `${file}:` && /^(\d+): refused: (\w+) must /.exec(line.slice(file.length + 1))?.slice(1)), [
    ['2', 'sip_uri'], ['6', 'email'], ['7', 'sip_uri'], ['8', 'display_name'], ['10', 'sip_uri'], ['12', 'sip_uri']
  ], 'every line that is refused has its number')
  t.strictSame(await find('a6@sip.example.org'), ['a6@example.org', 'A\nSix'])
  t.equal((await run('account', 'list')).out.split('\n').length, 1 + (await json('account', 'list')).length, 'a name cannot break the table')

  const scripted = await importing(bad, '--json')
  t.equal(scripted.code, 1)
  t.match(JSON.parse(scripted.out), { added: 0, known: 2, refused: [{ line: 2, reason: /^sip_uri must be/ }, { line: 6 }, { line: 7 }, { line: 8 }, { line: 10 }, { line: 12 }] })

  const before = await json('account', 'list')
  t.match(await importing('a7@sip.example.org\n"b7@sip.example.org\n'), { code: 1, out: '', err: /^voicemaild: This is no CSV: .*line 2$/ }, 'a quote that never ends')
  t.match(await importing(Buffer.from('a8@sip.example.org,,J\xf6rg\n', 'latin1')), { code: 1, out: '', err: /subscribers\.csv: expected text in UTF-8\.$/ })
  t.strictSame(await json('account', 'list'), before)
})

t.test('keys are made, listed without themselves, and taken back', async t => {
  const { run, json } = commands(folderOf(t))
  await json('account', 'add', 'bob@sip.example.org')
  const made = await json('key', 'add', '--name', 'phone', '--account', 'bob@sip.example.org', '--expires', '2027-01-31')
  t.match(made, {
    id: 1, name: 'phone', role: 'user', account_id: 1, created_at: '2026-01-02T03:04:05Z', expires_at: '2027-01-31T00:00:00Z', last_used_at: null, key: /^vm_[\w-]{40}$/
  })
  const recorder = await run('key', 'add', '--name', 'recorder', '--role', 'admin')
  t.match(recorder, { code: 0, out: /^vm_[\w-]{40}$/, err: /^Key 2, shown this once:$/ }, 'the key alone is on standard output, for KEY=$(…)')
  t.match(await json('key', 'add', '--name', 'desk', '--account', '1', '--role', 'admin', '--expires', '2027-01-31T18:00:00+02:00'), { id: 3, role: 'admin', account_id: 1, expires_at: '2027-01-31T16:00:00Z' })

  const list = await json('key', 'list')
  t.match(list, [{ id: 1, name: 'phone', account_id: 1 }, { id: 2, name: 'recorder', role: 'admin', account_id: null, expires_at: null }, { id: 3 }])
  t.notMatch(JSON.stringify(list), /vm_|sha256/)
  t.strictSame((await json('key', 'list', '--account', 'bob@sip.example.org')).map(({ id }: Json) => id), [1, 3])
  const { out } = await run('key', 'list')
  t.strictSame(out.split('\n').map(line => line.split(/ {2,}/)).slice(0, 3), [
    ['id', 'account', 'name', 'role', 'created_at', 'expires_at', 'last_used_at'],
    ['1', '1', 'phone', 'user', '2026-01-02T03:04:05Z', '2027-01-31T00:00:00Z', '-'],
    ['2', '-', 'recorder', 'admin', '2026-01-02T03:04:05Z', '-', '-']
  ])

  t.strictSame(await run('key', 'remove', '2'), { code: 0, out: 'Took key 2 back.', err: '' })
  t.strictSame(await json('key', 'remove', '3'), { id: 3, deleted: true })
  t.strictSame((await json('key', 'list')).map(({ id }: Json) => id), [1])
  await json('account', 'remove', '1')
  t.strictSame(await json('key', 'list'), [], 'an account takes its keys with it')
})

t.test('commands work beside a running server, which sees what they did at once', async t => {
  const service = await startService(t)
  const { json } = commands(service.dataFolder, Date.now)

  const { id } = await json('account', 'add', 'bob@sip.example.org')
  t.match(await service.call('GET', '/accounts/bob@sip.example.org/search'), { status: 200, body: { id } }, 'an account that was added is found')
  const made = await json('key', 'add', '--name', 'phone', '--account', String(id))
  const asBob = { 'x-api-key': made.key }
  t.match(await service.call('GET', '/accounts/me', undefined, asBob), { status: 200, body: { id } }, 'a key that was added opens')

  const slot = await service.openSlot(id)
  const body = await sample('ok/pcm16-16k.wav')
  const uploaded: Json = await (await fetch(slot.uploadUrl, { method: 'PUT', body })).json()
  t.match(await json('account', 'show', String(id)), { voicemails: { total: 1, unread: 1 } }, 'a voicemail that came is counted')
  t.match(await json('key', 'list'), [{ id: made.id, last_used_at: /^\d/ }])
  t.equal((await service.files()).length, 1)

  const other = await json('key', 'add', '--name', 'other', '--account', String(id))
  await json('key', 'remove', String(other.id))
  t.match(await service.call('GET', '/accounts/me', undefined, { 'x-api-key': other.key }), { status: 401 }, 'a key that was taken back opens nothing')

  t.strictSame(await json('account', 'remove', 'bob@sip.example.org'), { id, deleted: true })
  t.match(await service.call('GET', `/accounts/${id}`), { status: 404 }, 'an account that was removed is gone')
  t.match(await service.call('GET', '/accounts/me', undefined, asBob), { status: 401 }, 'with its key')
  t.equal((await fetch(uploaded.download_url)).status, 404, 'its voicemail')
  t.strictSame(await service.files(), [], 'and its file')
})

import { mkdir, mkdtemp, stat, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { sample, startService, type Service } from '../helper.js'
import { DEPLOY, filesIn, reaching, run, settingsFile, voicemailsOf, type Ended } from './scripts.js'

/** The three formats of Asterisk's sample configuration, `format=wav49|gsm|wav`: GSM 6.10 in a WAV, raw GSM, PCM in a WAV. */
async function recordings (): Promise<Record<string, Buffer>> {
  return { WAV: gsmWav(), gsm: Buffer.alloc(33 * 50, 0xd2), wav: await sample('ok/pcm16-16k.wav') }
}

/** GSM 6.10 in a WAV, as Asterisk's format_wav_gsm.c writes it: 65 bytes for 320 samples, and padded to an even length. */
function gsmWav (): Buffer<ArrayBuffer> {
  const blocks = 51
  const dataBytes = 65 * blocks
  const padded = dataBytes + dataBytes % 2
  const file = Buffer.alloc(60 + padded)
  file.fill(0x55, 60, 60 + dataBytes)
  file.write('RIFF', 0, 'latin1')
  file.writeUInt32LE(52 + padded, 4)
  file.write('WAVEfmt ', 8, 'latin1')
  file.writeUInt32LE(20, 16)
  file.writeUInt16LE(49, 20)
  file.writeUInt16LE(1, 22)
  file.writeUInt32LE(8000, 24)
  file.writeUInt32LE(1625, 28)
  file.writeUInt32LE(65, 32)
  file.writeUInt16LE(2, 36)
  file.writeUInt16LE(320, 38)
  file.write('fact', 40, 'latin1')
  file.writeUInt32LE(4, 44)
  file.writeUInt32LE(blocks * 320, 48)
  file.write('data', 52, 'latin1')
  file.writeUInt32LE(padded, 56)
  return file
}

/** What leave_voicemail() of app_voicemail.c writes beside a recording. */
function messageText (callerId: string): string {
  return ';\n; Message Information file\n;\n[message]\norigmailbox=1002\ncontext=users\nmacrocontext=\nexten=1002\nrdnis=unknown\npriority=2\n' +
    `callerchan=PJSIP/alice-00000001\ncallerid=${callerId}\norigdate=Thu Oct  9 12:59:32 PM UTC 2025\norigtime=1760014772\ncategory=\n` +
    'msg_id=1760014772-00000001\nflag=\nduration=6\n'
}

/** Asterisk's spool, with a message in as many formats as are given. */
async function asterisk (t: Test, settings: Record<string, string>) {
  const folder = await mkdtemp(join(t.testdirName, 'asterisk-'))
  const voicemail = join(folder, 'voicemail')
  await mkdir(voicemail)
  const env = await settingsFile(folder, { VOICEMAILD_ASTERISK_SPOOL: voicemail, VOICEMAILD_DOMAIN: 'sip.example.org', ...settings })
  return {
    env,
    leave: async (path: string, formats: Record<string, Buffer>, callerId = '"Alice" <1001>') => {
      await mkdir(join(voicemail, dirname(path)), { recursive: true })
      for (const [format, bytes] of Object.entries(formats)) await writeFile(join(voicemail, `${path}.${format}`), bytes)
      await writeFile(join(voicemail, `${path}.txt`), messageText(callerId))
    },
    /** As `externnotify` is called, through a shell with the counts; or as cron would call it. */
    notify: async (context: string, mailbox: string, more = env): Promise<Ended> =>
      await run('/bin/sh', ['-c', `${DEPLOY}asterisk-voicemail.sh ${context} ${mailbox} 1 0 0`], { env: more }),
    sweep: async (more = env): Promise<Ended> => await run(`${DEPLOY}asterisk-voicemail.sh`, [], { env: more }),
    left: async () => await filesIn(voicemail)
  }
}

/** A spool folder as freeswitch-voicemail.lua fills it. */
async function spool (t: Test, settings: Record<string, string>) {
  const folder = await mkdtemp(join(t.testdirName, 'spool-'))
  const recorded = join(folder, 'recorded')
  await mkdir(recorded)
  const env = await settingsFile(folder, { VOICEMAILD_SPOOL: recorded, ...settings })
  return {
    recorded,
    env,
    leave: async (name: string, bytes: Buffer, { to = 'sip:bob@sip.example.org', from = 'sip:alice@sip.example.org', ending = '.call' } = {}) => {
      await writeFile(join(recorded, name), bytes)
      await writeFile(join(recorded, name.replace(/\.[a-z]+$/, ending)), `to=${to}\nfrom=${from}\n`)
    },
    drain: async (more = env): Promise<Ended> => await run(`${DEPLOY}voicemail-spool`, [], { env: more }),
    left: async () => await filesIn(recorded)
  }
}

async function withBob (t: Test, settings: Record<string, string> = {}): Promise<{ service: Service, bob: number }> {
  const service = await startService(t, { settings })
  const { id } = await service.addUser('sip:bob@sip.example.org')
  return { service, bob: id }
}

t.test('Asterisk: what was left in a mailbox goes to the account, PCM before GSM, and every file of it from the spool', async t => {
  const service = await startService(t)
  const { id } = await service.addUser('sip:1002@sip.example.org')
  const other = await service.addUser('sip:1003@sip.example.org')
  const { leave, notify, left } = await asterisk(t, reaching(service))
  const all = await recordings()
  await leave('users/1002/INBOX/msg0000', all)
  await leave('users/1002/INBOX/msg0001', { WAV: gsmWav() })
  await leave('users/1002/Urgent/msg0000', { ogg: await sample('ok/speech-24k.opus') }, '"Boss" <sip:boss@sip.example.org>')
  await leave('users/1002/Old/msg0000', all)
  await leave('users/1003/INBOX/msg0000', all)
  t.strictSame(await notify('users', '1002'), { code: 0, out: '', err: '' })
  t.strictSame(await left(), ['WAV', 'gsm', 'txt', 'wav'].flatMap(format => [`users/1002/Old/msg0000.${format}`, `users/1003/INBOX/msg0000.${format}`]).sort(), 'other folders are not touched')
  const stored = await voicemailsOf(service, id)
  t.match(stored, [{ from: 'sip:1001@sip.example.org', type: 'audio/wav' }, { from: 'sip:1001@sip.example.org', type: 'audio/wav' }, { from: 'sip:boss@sip.example.org', type: 'audio/opus' }])
  for (const [at, bytes] of [await sample('ok/pcm16-16k.wav'), gsmWav(), await sample('ok/speech-24k.opus')].entries()) t.ok(stored[at]?.bytes.equals(bytes))
  const { body } = await service.call('GET', `/accounts/${id}/voicemails`)
  t.strictSame(body.map(({ duration }: { duration: number }) => duration), [6.712, 2.04, 6.712], 'GSM, too, has its duration')
  t.strictSame(await voicemailsOf(service, other.id), [])
})

t.test('Asterisk: cron uploads what is left in every mailbox, and contexts can be named after domains', async t => {
  const service = await startService(t)
  const one = await service.addUser('sip:1002@sip.example.org')
  const two = await service.addUser('sip:1002@other.example.net')
  const { leave, sweep, left } = await asterisk(t, reaching(service))
  for (const context of ['users', 'other.example.net']) await leave(`${context}/1002/INBOX/msg0000`, await recordings())
  t.strictSame(await sweep(), { code: 0, out: '', err: '' })
  t.strictSame(await left(), [])
  t.equal((await voicemailsOf(service, one.id)).length, 1)
  t.match(await voicemailsOf(service, two.id), [{ from: 'sip:1001@sip.example.org' }])
})

t.test('Asterisk: nothing that a caller or an argument says is run, or leads out of the spool', async t => {
  const service = await startService(t)
  const { id } = await service.addUser('sip:1002@sip.example.org')
  const { leave, sweep, left, env } = await asterisk(t, reaching(service))
  const witness = await mkdtemp(join(t.testdirName, 'witness-'))
  const callers = [
    [`"; touch ${witness}/a; " <$(touch ${witness}/b)>`, /^sip:%24%28touch%20[A-Za-z0-9.%_~-]*%29@sip\.example\.org$/],
    [`"\`touch ${witness}/c\`" <1001>`, /^sip:1001@sip\.example\.org$/],
    ['"x <999>"', /^sip:anonymous@anonymous\.invalid$/],
    ['"Alice"', /^sip:anonymous@anonymous\.invalid$/],
    ['Unknown', /^sip:anonymous@anonymous\.invalid$/],
    ['', /^sip:anonymous@anonymous\.invalid$/],
    ['"Алиса" <../../../1001>', /^sip:..%2F..%2F..%2F1001@sip\.example\.org$/],
    ['+4930123', /^sip:\+4930123@sip\.example\.org$/],
    ['"a\\" <1001","sip_from":"x>', /^sip:1001%22%2C%22sip_from%22@sip\.example\.org$/]
  ] as const
  for (const [at, [caller]] of callers.entries()) await leave(`users/1002/INBOX/msg000${at}`, { wav: await sample('ok/ulaw-8k.wav') }, caller)
  t.match(await sweep(), { code: 0 })
  t.match((await voicemailsOf(service, id)).map(({ from }) => from), callers.map(([, uri]) => uri))
  t.strictSame(await filesIn(witness), [])

  for (const [context, mailbox] of [['..', '1002'], ['users', '..'], ['users/1002', 'INBOX'], ['/etc', 'x'], ['', '']] as const) {
    t.match(await run(`${DEPLOY}asterisk-voicemail.sh`, [context, mailbox], { env }), { code: 64, err: /no mailbox/ }, `${context} ${mailbox}`)
  }
  t.strictSame(await left(), [])
})

t.test('Asterisk: with voicemaild down everything stays, and goes with the next call', async t => {
  const gone = await startService(t, { settings: { DATA_DIR: join(t.testdir(), 'gone') } })
  const { leave, notify, left, env } = await asterisk(t, reaching(gone))
  await gone.close()
  await leave('users/1002/INBOX/msg0000', await recordings())
  await leave('users/1002/INBOX/msg0001', await recordings())
  const before = await left()
  const { code, err } = await notify('users', '1002')
  t.equal(code, 69)
  t.equal(err.split('\n').filter(line => line.includes('no answer')).length, 1, 'one attempt tells it for all')
  t.strictSame(await left(), before)
  const service = await startService(t, { settings: { DATA_DIR: join(t.testdirName, 'back') } })
  const { id } = await service.addUser('sip:1002@sip.example.org')
  t.match(await notify('users', '1002', { ...env, ...reaching(service) }), { code: 0 })
  t.strictSame(await left(), [])
  t.equal((await voicemailsOf(service, id)).length, 2)
})

t.test('Asterisk: a message that is refused stays with its reason, and keeps no other back', async t => {
  const service = await startService(t)
  const { id } = await service.addUser('sip:1002@sip.example.org')
  const { leave, sweep, left } = await asterisk(t, reaching(service))
  await leave('users/1002/INBOX/msg0000', { wav: await sample('bad/mp3-named.wav') })
  await leave('users/1002/INBOX/msg0001', { gsm: Buffer.alloc(33) })
  await leave('users/1002/INBOX/msg0002', await recordings())
  await leave('users/4711/INBOX/msg0000', await recordings())
  await leave('users/9/INBOX/msg0000', await recordings())
  await leave('users/9/INBOX/.msg0001.wav', { slot: Buffer.from('of a message that somebody else removed') })
  t.match(await sweep(), { code: 67, err: /415: [^]*msg0001 has no \.wav[^]*sip:4711@sip\.example\.org: the account was not found/ })
  t.equal((await voicemailsOf(service, id)).length, 1)
  t.strictSame((await left()).filter(name => name.endsWith('.slot')), ['users/1002/INBOX/.msg0000.wav.slot'], 'nothing that Asterisk takes for a message')
  t.strictSame((await left()).filter(name => /msg[0-9]+\.txt$/.test(name)), ['users/1002/INBOX/msg0000.txt', 'users/1002/INBOX/msg0001.txt', 'users/4711/INBOX/msg0000.txt', 'users/9/INBOX/msg0000.txt'])
})

t.test('Asterisk: a quota that is reached keeps what is for that account only', async t => {
  const service = await startService(t, { settings: { ACCOUNT_QUOTA_MESSAGES: '1' } })
  const { id } = await service.addUser('sip:1002@sip.example.org')
  const other = await service.addUser('sip:1003@sip.example.org')
  const { leave, sweep, left } = await asterisk(t, reaching(service))
  await leave('users/1002/INBOX/msg0000', { wav: await sample('ok/ulaw-8k.wav') })
  await leave('users/1002/INBOX/msg0001', { wav: await sample('ok/ulaw-8k.wav') })
  await leave('users/1003/INBOX/msg0000', { wav: await sample('ok/ulaw-8k.wav') })
  t.match(await sweep(), { code: 75, err: /507: / })
  t.strictSame(await left(), ['users/1002/INBOX/msg0001.txt', 'users/1002/INBOX/msg0001.wav'])
  t.equal((await voicemailsOf(service, id)).length, 1)
  t.equal((await voicemailsOf(service, other.id)).length, 1)
  const [{ id: uuid }] = (await service.call('GET', `/accounts/${id}/voicemails`)).body
  await service.call('DELETE', `/accounts/${id}/voicemails/${uuid}`)
  t.match(await sweep(), { code: 0 })
  t.strictSame(await left(), [])
})

t.test('Asterisk: calls that end together upload each message once', async t => {
  const service = await startService(t)
  const { id } = await service.addUser('sip:1002@sip.example.org')
  const { leave, notify, sweep, left } = await asterisk(t, reaching(service))
  for (const at of [0, 1, 2, 3]) await leave(`users/1002/INBOX/msg000${at}`, await recordings())
  const runs = await Promise.all([notify('users', '1002'), notify('users', '1002'), sweep(), notify('users', '1002')])
  t.strictSame(runs.map(({ code }) => code), [0, 0, 0, 0])
  t.strictSame(await left(), [])
  t.equal((await voicemailsOf(service, id)).length, 4)
})

t.test('Asterisk: what a run left that ended between two removals is removed, and a recording without its text is Asterisk\'s still', async t => {
  const service = await startService(t)
  const { id } = await service.addUser('sip:1002@sip.example.org')
  const { leave, sweep, left } = await asterisk(t, { ...reaching(service), VOICEMAILD_SETTLE_SECONDS: '1' })
  await leave('users/1002/INBOX/msg0000', {})
  await leave('users/1002/tmp/XXabcd', await recordings())
  t.match(await sweep(), { code: 0 })
  t.match(await left(), ['users/1002/tmp/XXabcd.WAV', 'users/1002/tmp/XXabcd.gsm', 'users/1002/tmp/XXabcd.txt', 'users/1002/tmp/XXabcd.wav'])
  await leave('users/1002/INBOX/msg0001', await recordings())
  const before = Date.now()
  t.match(await sweep(), { code: 0 })
  t.ok(Date.now() - before < 10_000, 'a fresh message is waited for, not left')
  t.equal((await voicemailsOf(service, id)).length, 1)
})

t.test('Asterisk: without a domain nothing is guessed', async t => {
  const service = await startService(t)
  const { leave, sweep, left } = await asterisk(t, { ...reaching(service), VOICEMAILD_DOMAIN: '' })
  await leave('users/1002/INBOX/msg0000', { wav: await sample('ok/ulaw-8k.wav') })
  t.match(await sweep(), { code: 78, err: /VOICEMAILD_DOMAIN is not set/ })
  t.equal((await left()).length, 2)
})

t.test('a spool folder is emptied into the accounts, and unfinished recordings are left alone', async t => {
  const { service, bob } = await withBob(t)
  const { leave, drain, left } = await spool(t, reaching(service))
  await leave('1760014772-a.wav', await sample('ok/pcm16-16k.wav'))
  await leave('1760014773-b.opus', await sample('ok/speech-24k.opus'))
  await leave('with blanks $(id).wav', await sample('ok/ulaw-8k.wav'), { from: '"; rm -rf ~; "@sip.example.org' })
  await leave('1760014774-c.wav', await sample('ok/alaw-8k.wav'), { ending: '.call.part' })
  t.strictSame(await drain(), { code: 0, out: '', err: '' })
  t.strictSame(await left(), ['1760014774-c.call.part', '1760014774-c.wav'])
  t.match(await voicemailsOf(service, bob), [{ type: 'audio/wav' }, { type: 'audio/opus' }, { from: 'sip:%22%3B%20rm%20-rf%20~%3B%20%22@sip.example.org' }])
})

t.test('a recording whose writer died is uploaded after an hour', async t => {
  const { service, bob } = await withBob(t)
  const { recorded, leave, drain, left } = await spool(t, reaching(service))
  // Sizes in the header that nobody came to fill in.
  await leave('1760014772-a.wav', await sample('ok/streamed-unknown-size.wav'), { ending: '.call.part' })
  const longAgo = (await stat(recorded)).mtimeMs / 1000 - 3700
  await utimes(join(recorded, '1760014772-a.call.part'), longAgo, longAgo)
  t.match(await drain(), { code: 0 })
  t.strictSame(await left(), [])
  t.equal((await voicemailsOf(service, bob)).length, 1)
})

t.test('what voicemaild will never take is moved aside, and keeps no other back', async t => {
  const { service, bob } = await withBob(t)
  const { recorded, leave, drain, left } = await spool(t, reaching(service))
  await leave('1-bad.wav', await sample('bad/zero-channels.wav'))
  await leave('2-unaddressed.wav', await sample('ok/ulaw-8k.wav'), { to: '' })
  await leave('3-unknown.wav', await sample('ok/ulaw-8k.wav'), { to: 'sip:carol@sip.example.org' })
  await leave('4-good.wav', await sample('ok/ulaw-8k.wav'))
  await writeFile(join(recorded, '5-leftover.call'), 'to=sip:bob@sip.example.org\n')
  t.match(await drain(), { code: 67, err: /1-bad\.wav[^]*415: [^]*1-bad\.wav was moved to .*refused[^]*--to wants[^]*2-unaddressed[^]*3-unknown\.wav/ })
  t.strictSame(await left(), ['3-unknown.call', '3-unknown.wav', 'refused/1-bad.call', 'refused/1-bad.wav', 'refused/2-unaddressed.call', 'refused/2-unaddressed.wav'])
  t.equal((await voicemailsOf(service, bob)).length, 1)
  await service.addUser('sip:carol@sip.example.org')
  t.match(await drain(), { code: 0 })
  t.equal((await left()).length, 4, 'who got an account gets the voicemail')
})

t.test('a spool folder keeps all while voicemaild is down, and two runs at once upload each once', async t => {
  const gone = await startService(t, { settings: { DATA_DIR: join(t.testdir(), 'gone') } })
  const { leave, drain, left, env } = await spool(t, reaching(gone))
  await gone.close()
  for (const at of [1, 2, 3]) await leave(`${at}.wav`, await sample('ok/ulaw-8k.wav'))
  const before = await left()
  t.match(await drain(), { code: 69, err: /no answer/ })
  t.strictSame(await left(), before)
  const { service, bob } = await withBob(t, { DATA_DIR: join(t.testdirName, 'back') })
  const back = { ...env, ...reaching(service) }
  t.strictSame((await Promise.all([drain(back), drain(back), drain(back)])).map(({ code }) => code), [0, 0, 0])
  t.strictSame(await left(), [])
  t.equal((await voicemailsOf(service, bob)).length, 3)
  t.match(await drain({ ...back, VOICEMAILD_SPOOL: '/nonexistent' }), { code: 78, err: /is no folder/ })
})

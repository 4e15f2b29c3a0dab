import { mkdir, mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { sample, startService } from '../test/helper.js'
import { DEPLOY, filesIn, reaching, run, settingsFile, voicemailsOf, type Ended } from '../test/deploy/scripts.js'

// FreeSWITCH itself is not in Debian. What runs here is Lua, with a stand-in for the objects that FreeSWITCH has.
const SESSION = fileURLToPath(new URL('freeswitch-session.lua', import.meta.url))
const SOUND = fileURLToPath(new URL('../test/fixtures/samples/ok/pcm16-16k.wav', import.meta.url))
const CALL = { sip_req_user: 'bob', sip_req_host: 'sip.example.org', sip_from_user: 'alice', sip_from_host: 'sip.example.org', uuid: '0199c9a6-6d3d-7f0e-8f0a-3b6a4f2c1d00' }

async function pbx (t: Test, settings: Record<string, string>) {
  const folder = await mkdtemp(join(t.testdirName, 'freeswitch-'))
  const recorded = join(folder, 'spool')
  await mkdir(recorded)
  const env = await settingsFile(folder, { VOICEMAILD_SPOOL: recorded, ...settings })
  return {
    recorded,
    call: async (variables: Record<string, string>, { sound = SOUND, uploader = `${DEPLOY}voicemail-spool` }: { sound?: string | undefined, uploader?: string } = {}): Promise<Ended> => {
      const pairs = (from: Record<string, string>): string[] => Object.entries(from).map(([name, value]) => `${name}=${value}`)
      const globals = { voicemaild_spool: recorded, voicemaild_uploader: uploader }
      const args = [SESSION, `${DEPLOY}freeswitch-voicemail.lua`, ...pairs(globals), '--', ...pairs(variables)]
      return await run('lua5.3', args, { env: { ...env, ...sound !== '' && { SOUND: sound } } })
    },
    left: async () => await filesIn(recorded)
  }
}

t.test('FreeSWITCH: a message is recorded for whom was called, and uploaded when the caller is done', async t => {
  const service = await startService(t)
  const { id } = await service.addUser('sip:bob@sip.example.org')
  const carol = await service.addUser('sip:carol@sip.example.org')
  const { call, left } = await pbx(t, reaching(service))
  t.strictSame(await call(CALL), { code: 0, out: '', err: '' })
  t.match(await call({ ...CALL, voicemail_to: 'sip:carol@sip.example.org' }), { code: 0 })
  t.strictSame(await left(), [])
  const [stored] = await voicemailsOf(service, id)
  t.equal(stored?.from, 'sip:alice@sip.example.org')
  t.ok(stored?.bytes.equals(await sample('ok/pcm16-16k.wav')))
  t.equal((await voicemailsOf(service, carol.id)).length, 1)
})

t.test('FreeSWITCH: whoever hangs up before the beep leaves nothing', async t => {
  const service = await startService(t)
  const { call, left } = await pbx(t, reaching(service))
  t.match(await call(CALL, { sound: '' }), { code: 0, err: '' })
  t.strictSame(await left(), [])
})

t.test('FreeSWITCH: what could not be uploaded stays in the spool', async t => {
  const gone = await startService(t)
  const { call, left } = await pbx(t, reaching(gone))
  await gone.close()
  await call(CALL)
  t.match(await left(), [/^[0-9]+-[0-9a-f-]+\.call$/, /^[0-9]+-[0-9a-f-]+\.wav$/])
})

t.test('FreeSWITCH: nothing that a caller sends is run, leaves the spool, or passes for another field', async t => {
  const service = await startService(t)
  const { id } = await service.addUser('sip:bob@sip.example.org')
  const { call, left, recorded } = await pbx(t, reaching(service))
  const witness = join(recorded, 'witness')
  t.match(await call({ ...CALL, uuid: '../../../call-id@1.2.3.4;$(id)\n', sip_from_user: `"; touch ${witness}; "\nto=sip:eve@sip.example.org` }), { code: 0 })
  t.match(await call({ ...CALL, sip_from_user: `$(touch ${witness})`, sip_from_host: '`id`' }), { code: 0 })
  t.match(await call({ ...CALL, sip_from_user: '' }), { code: 0 })
  t.strictSame(await left(), [])
  t.match((await voicemailsOf(service, id)).map(({ from }) => from), [/^sip:%22%3B%20touch%20[A-Za-z0-9%._~-]+@sip\.example\.org$/, 'sip:anonymous@anonymous.invalid', 'sip:anonymous@anonymous.invalid'])
})

t.test('FreeSWITCH: where nothing can be written nobody is asked to speak', async t => {
  const { code, err } = await run('lua5.3', [SESSION, `${DEPLOY}freeswitch-voicemail.lua`, 'voicemaild_spool=/nonexistent/spool', '--', 'uuid=x'])
  t.equal(code, 0)
  t.match(err, /^err: voicemaild: \/nonexistent\/spool\/[0-9]+-x\.call\.part: No such file or directory\nhangup: DESTINATION_OUT_OF_ORDER\n$/)
})

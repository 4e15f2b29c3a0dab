import { readdir, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { checkFiles } from '../../src/commands/upkeep.js'
import { readConfig } from '../../src/config.js'
import { recover } from '../../src/domain/recovery.js'
import { sweep } from '../../src/domain/sweeper.js'
import { sample, startService, type Service } from '../helper.js'
import { faultOf, watchDisk, type Step } from './disk-steps.js'

/** What a step is made to say, as often as it is taken. `at` is a part of the path below the data folder. */
interface Fault { operation: Step['operation'], at?: RegExp, code: string, skip?: number }

const FILE_CODES = ['EIO', 'ENOSPC', 'EDQUOT', 'EMFILE'] as const
const ROW_CODES = ['SQLITE_FULL', 'SQLITE_IOERR_WRITE', 'SQLITE_IOERR_FSYNC'] as const
const INCOMING = /^incoming\/./
const SHARD = /^audio\/..$/
const FULL = /ENOSPC|EDQUOT|SQLITE_FULL/

let fault: Fault | undefined
let hits = 0
let faults = 0
let wrong = 0
let dataFolder = ''

function strike (step: Step): void {
  if (fault === undefined || step.operation !== fault.operation || !step.path.startsWith(dataFolder)) return
  if (fault.at !== undefined && !fault.at.test(step.path.slice(dataFolder.length + 1))) return
  hits += 1
  if (hits <= (fault.skip ?? 0)) return
  faults += 1
  throw faultOf(fault.code)
}

const disk = await watchDisk({
  before: step => { if (step.operation !== 'close') strike(step) },
  // A file that says EIO when it is closed is closed all the same.
  after: step => { if (step.operation === 'close') strike(step) }
})

/** Runs with a fault put in; says whether it was met. */
async function under<T> (put: Fault, run: () => Promise<T>): Promise<{ value: T, isMet: boolean }> {
  fault = put
  hits = 0
  try {
    return { value: await run(), isMet: hits > (put.skip ?? 0) }
  } finally {
    fault = undefined
  }
}

const service = await startService(t, { settings: { LOG_LEVEL: 'error', ACCOUNT_OPEN_SLOTS: '0' } })
t.teardown(() => { disk.restore() })
dataFolder = service.dataFolder
const { id: account } = await service.addUser()
const audio = await sample('ok/pcm16-16k.wav')

async function put (path: string): Promise<{ status: number, code: unknown }> {
  const response = await fetch(service.url + path, { method: 'PUT', body: audio, headers: { 'content-type': 'audio/wav' } })
  const { code } = await response.json() as { code?: unknown }
  return { status: response.status, code }
}

async function store (): Promise<{ id: string, path: string }> {
  const slot = await service.openSlot(account)
  await put(slot.path)
  return slot
}

const of = (id: string): string => `/accounts/${account}/voicemails/${id}`

async function heard (id: string): Promise<boolean> {
  const { body } = await service.call('GET', of(id))
  const response = await fetch(body.get_url)
  return response.status === 200 && Buffer.from(await response.arrayBuffer()).equals(audio)
}

/** Files that no voicemail has. */
async function strays ({ data }: Service): Promise<string[]> {
  const names = await service.files()
  const known = await Promise.all(names.map(async name => await data.voicemailStore.isFileKnown(name)))
  return names.filter((_name, at) => known[at] === false)
}

/** Takes the folders away in which nothing is left. */
async function removeAudioFolders (): Promise<void> {
  const audioFolder = join(dataFolder, 'audio')
  for (const shard of await readdir(audioFolder)) await rmdir(join(audioFolder, shard))
}

const title = ({ operation, at, code, skip }: Fault): string => `${code} at ${skip === undefined ? '' : 'a later '}${operation} ${at?.source ?? ''}`

/** As a whole line of the report where it holds, and counted where it does not. */
function holds (t: Test, found: unknown, wanted: unknown, what: string): void {
  if (!t.strictSame(found, wanted, what)) wrong += 1
}

t.test('an upload that the disk refuses is 507 where it is full and 500 else, leaves nothing, and may be tried again', async t => {
  const places: Array<Omit<Fault, 'code'>> = [
    { operation: 'open', at: INCOMING },
    { operation: 'write', at: INCOMING },
    { operation: 'write', at: INCOMING, skip: 1 },
    { operation: 'datasync', at: INCOMING },
    { operation: 'close', at: INCOMING },
    { operation: 'mkdir', at: SHARD },
    { operation: 'open', at: /^audio$/ },
    { operation: 'sync', at: /^audio$/ },
    { operation: 'link' },
    { operation: 'open', at: SHARD },
    { operation: 'sync', at: SHARD },
    { operation: 'close', at: SHARD }
  ]
  const all: Fault[] = [
    ...places.flatMap(place => FILE_CODES.map(code => ({ ...place, code }))),
    ...ROW_CODES.map(code => ({ operation: 'COMMIT' as const, code }))
  ]
  for (const one of all) {
    // A folder of audio is made, and synced, only where it is not there.
    await removeAudioFolders()
    const slot = await service.openSlot(account)
    const attempt = await under(one, async () => await put(slot.path))
    holds(t, attempt.isMet, true, `${title(one)} is met`)
    const { body } = await service.call('GET', of(slot.id))
    const wanted = FULL.test(one.code) ? { status: 507, code: 'insufficient_storage' } : { status: 500, code: 'internal_error' }
    // The failure is a row itself: where rows are refused there is none.
    const failure = one.operation === 'COMMIT' ? undefined : wanted.code
    const found = { ...attempt.value, slot: body.status, failure: body.failure?.code, left: await strays(service) }
    holds(t, found, { ...wanted, slot: 'pending', failure, left: [] }, title(one))
    const again = await put(slot.path)
    holds(t, { again: again.status, heard: await heard(slot.id), left: await strays(service) }, { again: 200, heard: true, left: [] }, `${title(one)}, and then again`)
    await service.call('DELETE', of(slot.id))
  }
})

t.test('a disk that refuses even to take back what was written is asked again with the next upload', async t => {
  for (const code of FILE_CODES) {
    const slot = await service.openSlot(account)
    const cut = Buffer.from(audio.subarray(0, 20))
    const { value: status } = await under({ operation: 'unlink', code }, async () => {
      const response = await fetch(service.url + slot.path, { method: 'PUT', body: cut, headers: { 'content-type': 'audio/wav' } })
      await response.arrayBuffer()
      return response.status
    })
    holds(t, status, 415, `${code} at unlink does not change what the sender is told`)
    holds(t, { again: (await put(slot.path)).status, left: await strays(service) }, { again: 200, left: [] }, `${code} at unlink, and then again`)
  }
})

t.test('a voicemail that is stored is stored, whether or not its entry in incoming goes, and that goes with it', async t => {
  for (const code of FILE_CODES) {
    const slot = await service.openSlot(account)
    const { value, isMet } = await under({ operation: 'unlink', at: INCOMING, code }, async () => await put(slot.path))
    holds(t, { status: value.status, isMet, heard: await heard(slot.id) }, { status: 200, isMet: true, heard: true }, title({ operation: 'unlink', at: INCOMING, code }))
    holds(t, (await readdir(join(dataFolder, 'incoming'))).length, 1, 'the entry is there')
    holds(t, (await service.call('DELETE', of(slot.id))).status, 200, 'the voicemail can be deleted')
    holds(t, await readdir(join(dataFolder, 'incoming')), [], 'and its audio is nowhere then')
  }
})

t.test('a file system without hard links moves the file', async t => {
  for (const code of ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']) {
    const slot = await service.openSlot(account)
    const { value, isMet } = await under({ operation: 'link', code }, async () => await put(slot.path))
    holds(t, { status: value.status, isMet, heard: await heard(slot.id), left: await strays(service) }, { status: 200, isMet: true, heard: true, left: [] }, code)
  }
})

t.test('a slot that cannot be written down, or whose disk cannot be looked at, is refused and not there', async t => {
  const all: Fault[] = [
    ...ROW_CODES.map(code => ({ operation: 'COMMIT' as const, code })),
    { operation: 'statfs', code: 'EIO' },
    { operation: 'statfs', code: 'EMFILE' }
  ]
  const count = async (): Promise<string | null> => (await service.call('GET', `/accounts/${account}/voicemails?limit=1`)).headers.get('x-total-count')
  for (const one of all) {
    const before = await count()
    const { value: { status, body } } = await under(one, async () => await service.call('POST', `/accounts/${account}/voicemails`, { sip_from: 'sip:alice@sip.example.org', content_type: 'audio/wav' }))
    const wanted = FULL.test(one.code) ? [507, 'insufficient_storage'] : [500, 'internal_error']
    holds(t, [status, body.code, await count()], [...wanted, before], title(one))
    holds(t, (await put((await service.openSlot(account)).path)).status, 200, `${title(one)}, and then another`)
  }
})

t.test('PATCH that cannot be written down changes nothing', async t => {
  const { id } = await store()
  for (const code of ROW_CODES) {
    const { value } = await under({ operation: 'COMMIT', code }, async () => await service.call('PATCH', of(id), { read: true }))
    holds(t, [value.status, (await service.call('GET', of(id))).body.read_at], [code === 'SQLITE_FULL' ? 507 : 500, null], code)
  }
  const { status, body } = await service.call('PATCH', of(id), { read: true })
  holds(t, [status, typeof body.read_at], [200, 'string'], 'and then again')
})

t.test('DELETE that cannot be written down takes nothing away', async t => {
  for (const code of ROW_CODES) {
    const { id } = await store()
    const { value } = await under({ operation: 'COMMIT', code }, async () => await service.call('DELETE', of(id)))
    holds(t, [value.status, await heard(id)], [code === 'SQLITE_FULL' ? 507 : 500, true], code)
    holds(t, [(await service.call('DELETE', of(id))).status, await strays(service)], [200, []], `${code}, and then again`)
  }
})

t.test('DELETE whose file does not go is a deletion for everybody, and the sweeper takes the file when the disk lets it go', async t => {
  for (const operation of ['unlink', 'open', 'sync'] as const) {
    for (const code of FILE_CODES) {
      const { id } = await store()
      const { body: { get_url: url } } = await service.call('GET', of(id))
      const one = { operation, at: operation === 'unlink' ? /^audio\/..\// : SHARD, code }
      const { value, isMet } = await under(one, async () => await service.call('DELETE', of(id)))
      // A full disk keeps nobody from deleting.
      holds(t, [isMet, value.status], [true, FULL.test(code) ? 200 : 500], title(one))
      holds(t, [(await service.call('GET', of(id))).status, (await service.call('DELETE', of(id))).status, (await fetch(url)).status], [404, 404, 404], 'gone for whoever asks')
      holds(t, [(await service.data.voicemailStore.pendingRemovals()).length, (await strays(service)).length], [1, operation === 'unlink' ? 1 : 0], 'and noted')
      await sweep({ ...service.data, retentionMs: 0, retentionReadMs: 0, auditMs: Infinity, graceMs: 0, isReceiving: () => false })
      holds(t, [await service.data.voicemailStore.pendingRemovals(), await strays(service)], [[], []], 'and then swept')
      // Whatever the sweeper did, the next case begins clean.
      await recover(service.data)
    }
  }
})

t.test('a download that the disk refuses is 500, or is cut off, and the next one is whole', async t => {
  const { id } = await store()
  const { body: { get_url: url } } = await service.call('GET', of(id))
  for (const operation of ['open', 'stat', 'read'] as const) {
    for (const code of ['EIO', 'EMFILE']) {
      const one = { operation, at: /^audio\/..\//, code }
      const { value, isMet } = await under(one, async () => {
        const response = await fetch(url)
        await response.arrayBuffer()
        return response.status
      })
      holds(t, [isMet, value, await heard(id)], [true, 500, true], title(one))
    }
  }
  // Larger than what is read at once.
  const long = await service.openSlot(account)
  const samples = Buffer.concat([audio, audio, audio, audio])
  await (await fetch(service.url + long.path, { method: 'PUT', body: samples, headers: { 'content-type': 'audio/wav' } })).arrayBuffer()
  const { body: { get_url: longUrl } } = await service.call('GET', of(long.id))
  const { isMet } = await under({ operation: 'read', code: 'EIO', skip: 1 }, async () => {
    await t.rejects(async () => await (await fetch(longUrl)).arrayBuffer(), 'whoever listens sees that there was more')
  })
  holds(t, [isMet, Buffer.from(await (await fetch(longUrl)).arrayBuffer()).equals(samples)], [true, true], 'EIO in the middle, and then again')
})

t.test('nobody is kept from hearing a voicemail by a database that takes no note of it', async t => {
  const { id } = await store()
  const { body: { get_url: url } } = await service.call('GET', of(id))
  for (const code of ROW_CODES) {
    const { value } = await under({ operation: 'COMMIT', code }, async () => {
      const response = await fetch(url)
      await response.arrayBuffer()
      return response.status
    })
    holds(t, value, 200, code)
  }
})

t.test('a data folder that cannot be written is told by /health/ready, and only as long as it is so', async t => {
  for (const code of ['EROFS', 'EACCES', 'EIO']) {
    const { value } = await under({ operation: 'access', code }, async () => await service.call('GET', '/health/ready'))
    holds(t, [value.status, (await service.call('GET', '/health/ready')).status], [503, 200], code)
  }
})

t.test('a folder that cannot be read ends the recovery and the check, and neither takes it for an empty one', async t => {
  const { id } = await store()
  const config = readConfig({ DATA_DIR: dataFolder })
  const later = { ...service.data, clock: () => Date.now() + 2 * 3600_000 }
  for (const code of ['EIO', 'EMFILE', 'EACCES']) {
    await under({ operation: 'readdir', at: /^incoming$/, code }, async () => { await t.rejects(recover(service.data), { code }) })
    for (const at of [/^audio$/, SHARD]) {
      const { isMet } = await under({ operation: 'readdir', at, code }, async () => {
        await t.rejects(checkFiles(config, later, { repair: true }), { code })
      })
      holds(t, [isMet, await heard(id)], [true, true], title({ operation: 'readdir', at, code }))
    }
  }
})

t.test('after all that the service has what it answered for, nothing else, and no file open', async t => {
  await recover(service.data)
  const { findings } = await checkFiles(readConfig({ DATA_DIR: dataFolder }), { ...service.data, clock: () => Date.now() + 2 * 3600_000 }, { deep: true })
  holds(t, findings, [], 'check --deep finds nothing')
  holds(t, await readdir(join(dataFolder, 'incoming')), [], 'incoming is empty')
  holds(t, disk.openHandles(), 0, 'no file is open')
  t.comment(`${faults} faults injected, ${wrong} wrong answers`)
})

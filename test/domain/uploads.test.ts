import t, { type Test } from 'tap'
import { createUploads, type Upload, type Uploads } from '../../src/domain/uploads.js'
import { createVoicemails, type Voicemails } from '../../src/domain/voicemails.js'
import { AppError } from '../../src/errors.js'
import { sample, startService, wavOf, type Json } from '../helper.js'

const MAX_BYTES = 400_000
const WAV = wavOf(300_000)
const OTHER_WAV = wavOf(200_000)

const service = await startService(t, { settings: { MAX_UPLOAD_SIZE: String(MAX_BYTES) } })
const { data } = service
const { id: accountId } = await service.addUser()

/** Stores whose calls a test can get in the way of; whatever it does not replace is real. */
function domain (changes: { voicemailStore?: Partial<typeof data.voicemailStore>, audioStore?: Partial<typeof data.audioStore> } = {}): { uploads: Uploads, voicemails: Voicemails } {
  const deps = {
    voicemailStore: { ...data.voicemailStore, ...changes.voicemailStore },
    audioStore: { ...data.audioStore, ...changes.audioStore },
    clock: Date.now
  }
  const uploads = createUploads(deps)
  return { uploads, voicemails: createVoicemails({ ...deps, uploads, uploadUrlTtlMs: 3_600_000, limits: { maxUploadBytes: MAX_BYTES, minFreeDiskBytes: 0, accountQuotaBytes: 0, accountQuotaMessages: 0, accountOpenSlots: 0 } }) }
}

const BY = { caller: 'test', address: null }

interface Sending {
  bytes?: Buffer
  declaredType?: string | undefined
  declaredBytes?: number | undefined
  partType?: string | undefined
  /** Called before the first chunk, before the second, and so on, and once more behind the last. */
  before?: (chunk: number) => unknown
  /** Whether the source looks at its signal, as a request's body does. */
  heedsSignal?: boolean
}

/** An upload in chunks of 100,000 bytes; `asked` tells how often it was asked for one, `ended` whether it was told to let go. */
function sending ({ bytes = WAV, declaredType = 'audio/wav', declaredBytes, partType = declaredType, before = () => {}, heedsSignal = true }: Sending = {}): Upload & { asked: number, ended: boolean } {
  const upload = {
    asked: 0,
    ended: false,
    declaredType,
    declaredBytes,
    read: async (signal: AbortSignal) => {
      async function * chunks (): AsyncGenerator<Uint8Array> {
        try {
          for (let at = 0; ; at += 100_000) {
            await before(upload.asked++)
            if (heedsSignal) signal.throwIfAborted()
            if (at >= bytes.length) return
            yield bytes.subarray(at, at + 100_000)
          }
        } finally {
          upload.ended = true
        }
      }
      return { declaredType: partType, chunks: chunks() }
    }
  }
  return upload
}

const newSlot = async (): Promise<string> => (await service.openSlot(accountId)).id
const show = async (id: string): Promise<Json> => (await service.call('GET', `/accounts/${accountId}/voicemails/${id}`)).body
const pending = (failure: unknown) => ({ status: 'pending', uploaded_at: null, file_size: null, sha256: null, download_url: null, failure })
const noteOf = (code: string) => pending({ code, detail: String, at: /Z$/ })

/** Deletes every voicemail: what is on the disk after that was in no list. */
async function clear (t: Test): Promise<void> {
  for (const { id } of (await service.call('GET', `/accounts/${accountId}/voicemails`)).body) await service.call('DELETE', `/accounts/${accountId}/voicemails/${id}`)
  t.strictSame(await service.files(), [])
  t.strictSame(await data.voicemailStore.pendingRemovals(), [])
}

function test (title: string, run: (t: Test) => Promise<void>): void {
  t.test(title, async t => {
    await run(t)
    await clear(t)
  })
}

test('while one upload runs a second is refused unread, and the first is not disturbed', async t => {
  const { uploads } = domain()
  const id = await newSlot()
  const second = sending()
  const first = sending({
    before: async chunk => {
      if (chunk !== 1) return
      t.ok(uploads.isReceiving(id))
      await t.rejects(uploads.receive(id, second), { code: 'upload_in_progress' })
      await t.rejects(uploads.receive(id, sending({ declaredType: 'audio/ogg', declaredBytes: MAX_BYTES + 1 })), { code: 'unsupported_media_type' }, 'what is wrong with the second itself comes first')
      await t.rejects(uploads.receive(id, sending({ declaredBytes: MAX_BYTES + 1 })), { code: 'upload_too_large' })
      t.match(await show(id), pending(null), 'a refusal of the second is no failure of the slot')
    }
  })
  t.match(await uploads.receive(id, first), { isRepeat: false, voicemail: { id, fileBytes: WAV.length } })
  t.equal(second.asked, 0)
  t.notOk(uploads.isReceiving(id))
  t.match(await show(id), { status: 'stored', file_size: WAV.length, failure: null })
})

test('of two uploads that begin in the same moment one is stored and one refused', async t => {
  const { uploads } = domain()
  const id = await newSlot()
  const ends = await Promise.allSettled([uploads.receive(id, sending()), uploads.receive(id, sending({ bytes: OTHER_WAV }))])
  t.match(ends, [{ status: 'fulfilled' }, { status: 'rejected', reason: { code: 'upload_in_progress' } }])
  t.match(await show(id), { file_size: WAV.length, failure: null })
  t.equal((await service.files()).length, 1)
})

test('after success the same bytes again are the same voicemail, other bytes are refused, and neither changes a thing', async t => {
  const { uploads } = domain()
  const id = await newSlot()
  await uploads.receive(id, sending())
  const stored = await data.voicemailStore.find(id)
  const files = await service.files()
  t.strictSame(await uploads.receive(id, sending()), { voicemail: stored, isRepeat: true })
  const changed = Buffer.from(WAV)
  changed.writeUInt8(changed.readUInt8(299_999) ^ 1, 299_999)
  for (const [code, upload] of Object.entries({
    already_uploaded: sending({ bytes: OTHER_WAV }),
    upload_too_large: sending({ bytes: wavOf(MAX_BYTES + 1) }),
    unsupported_media_type: sending({ partType: 'audio/ogg' })
  })) await t.rejects(uploads.receive(id, upload), { code })
  for (const bytes of [changed, WAV.subarray(0, -1), Buffer.concat([WAV, Buffer.from([0])]), Buffer.alloc(0)]) {
    await t.rejects(uploads.receive(id, sending({ bytes })), { code: 'already_uploaded' })
  }
  await t.rejects(uploads.receive(id, sending({ before: () => { throw new AppError('body_incomplete', 'Cut.') } })), { code: 'body_incomplete' })
  t.strictSame(await data.voicemailStore.find(id), stored)
  t.strictSame(await service.files(), files)

  const deleted = sending({ before: async chunk => { if (chunk === 1) await voicemails.remove(accountId, id, BY) } })
  const { uploads: watched, voicemails } = domain()
  await t.rejects(watched.receive(id, deleted), { code: 'not_found' }, 'deleted while the same bytes come again')
  t.equal(deleted.asked, 2, 'the rest is not asked for')
})

test('a voicemail deleted at any moment of its upload is gone, and the upload is told so', async t => {
  const id = { now: '' }
  const removing = (at: number, heedsSignal: boolean) => async () => {
    const { uploads, voicemails } = domain()
    const upload = sending({ heedsSignal, before: async chunk => { if (chunk === at) await voicemails.remove(accountId, id.now, BY) } })
    return { uploads, upload }
  }
  const whileStoring = (order: 'before' | 'with') => async () => {
    const { uploads, voicemails }: ReturnType<typeof domain> = domain({
      voicemailStore: {
        markStored: async (...args) => {
          const removal = voicemails.remove(accountId, id.now, BY)
          if (order === 'before') await removal
          const row = await data.voicemailStore.markStored(...args)
          await removal
          return row
        }
      }
    })
    return { uploads, upload: sending() }
  }
  const whileReading = async () => {
    const { uploads, voicemails } = domain()
    const upload = sending()
    const { read } = upload
    upload.read = async signal => {
      await voicemails.remove(accountId, id.now, BY)
      return await read(signal)
    }
    return { uploads, upload }
  }
  const accountGone = async () => {
    const { uploads } = domain()
    const user = await service.addUser()
    id.now = (await service.openSlot(user.id)).id
    return { uploads, upload: sending({ before: async chunk => { if (chunk === 1) await service.call('DELETE', `/accounts/${user.id}`) } }) }
  }
  for (const [moment, prepare] of Object.entries({
    'before it is read': whileReading,
    'before the first byte': removing(0, true),
    'between two chunks': removing(1, true),
    'behind the last byte': removing(3, true),
    'between two chunks, unnoticed by the source': removing(1, false),
    'behind the last byte, unnoticed by the source': removing(3, false),
    'before the row is written': whileStoring('before'),
    'in the transaction that would write the row': whileStoring('with'),
    'with its account': accountGone
  })) {
    await t.test(moment, async t => {
      id.now = await newSlot()
      const { uploads, upload } = await prepare()
      await t.rejects(uploads.receive(id.now, upload), { code: 'not_found' })
      t.strictSame(await service.files(), [])
      t.equal(await data.voicemailStore.find(id.now), undefined)
      await uploads.settled()
      await t.rejects(uploads.receive(id.now, sending()), { code: 'not_found' })
    })
  }
})

test('a voicemail deleted in the transaction that stores it, but after that, goes with its file', async t => {
  const id = await newSlot()
  const { uploads, voicemails }: ReturnType<typeof domain> = domain({
    voicemailStore: {
      markStored: async (...args) => {
        const marked = data.voicemailStore.markStored(...args)
        const removal = voicemails.remove(accountId, id, BY)
        const row = await marked
        await removal
        return row
      }
    }
  })
  t.match(await uploads.receive(id, sending()), { isRepeat: false }, 'it was stored, if only for a moment')
  t.strictSame(await service.files(), [])
  t.equal(await data.voicemailStore.find(id), undefined)
})

test('whatever ends an upload leaves nothing but a note in the words of the answer, and the slot can be filled still', async t => {
  const fail = (error: unknown) => () => { throw error }
  const secret = new Error('/secret/path: broken')
  const noSpace = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' })
  const failing = (at: number, error: unknown): Sending => ({ before: chunk => { if (chunk === at) throw error } })
  const cases: Record<string, { code: string, sending?: Sending, stores?: Parameters<typeof domain>[0], thrown?: unknown }> = {
    'a sender that goes away': { code: 'body_incomplete', sending: failing(1, new AppError('body_incomplete', 'Gone.')) },
    'a sender that goes silent behind its last byte': { code: 'sender_too_slow', sending: failing(3, new AppError('sender_too_slow', 'Silent.')) },
    'a type that was not agreed': { code: 'unsupported_media_type', sending: { declaredType: 'audio/ogg' } },
    'a part of a type that was not agreed': { code: 'unsupported_media_type', sending: { partType: 'text/html' } },
    'a length that was not agreed': { code: 'upload_too_large', sending: { declaredBytes: MAX_BYTES + 1 } },
    'more bytes than were agreed': { code: 'upload_too_large', sending: { bytes: wavOf(MAX_BYTES + 1) } },
    'no audio': { code: 'unsupported_audio', sending: { bytes: await sample('bad/mp3-named.wav') } },
    'no bytes': { code: 'unsupported_audio', sending: { bytes: Buffer.alloc(0) } },
    'an error nobody thought of': { code: 'internal_error', sending: failing(1, secret), thrown: secret },
    'a thing that is no error': { code: 'internal_error', sending: failing(1, 'oh'), thrown: 'oh' },
    'a file that cannot be opened': { code: 'internal_error', stores: { audioStore: { write: fail(secret) } }, thrown: secret },
    'a disk that is full': {
      code: 'insufficient_storage',
      stores: {
        audioStore: {
          write: async (chunks, commit) => await data.audioStore.write((async function * () {
            yield * chunks
            throw noSpace
          })(), commit)
        }
      }
    },
    'a row that cannot be written': { code: 'internal_error', stores: { voicemailStore: { markStored: fail(secret) } }, thrown: secret },
    'a row that the disk has no room for': { code: 'insufficient_storage', stores: { voicemailStore: { markStored: fail(Object.assign(new Error('full'), { code: 'SQLITE_FULL' })) } } },
    'a row that cannot be read': { code: 'internal_error', stores: { voicemailStore: { find: fail(secret) } }, thrown: secret }
  }
  for (const [title, { code, stores, thrown = { code }, sending: what }] of Object.entries(cases)) {
    await t.test(title, async t => {
      const id = await newSlot()
      const { uploads } = domain(stores)
      const reason: unknown = await uploads.receive(id, sending(what)).then(() => 'stored', (error: unknown) => error)
      t.match(reason, thrown)
      t.strictSame(await service.files(), [])
      await uploads.settled()
      const shown = await show(id)
      t.match(shown, noteOf(code))
      t.notMatch(JSON.stringify(shown), /secret/)
      if (reason instanceof AppError) t.equal(shown.failure.detail, reason.message)

      t.match(await domain().uploads.receive(id, sending()), { isRepeat: false })
      t.match(await show(id), { status: 'stored', file_size: WAV.length, failure: null }, 'success clears it')
      t.equal((await service.files()).length, 1)
      await clear(t)
    })
  }
})

test('where not even the note can be written, the answer is the same', async t => {
  const id = await newSlot()
  const { uploads } = domain({ voicemailStore: { noteFailure: async () => { throw new Error('the disk is gone') } } })
  await t.rejects(uploads.receive(id, sending({ bytes: await sample('bad/html-named.wav') })), { code: 'unsupported_audio' })
  t.match(await show(id), pending(null))
  await uploads.settled()
  await uploads.receive(id, sending())
})

test('a note is of the last attempt, and a slot that is gone has none', async t => {
  const id = await newSlot()
  const { uploads } = domain()
  await t.rejects(uploads.receive(id, sending({ bytes: Buffer.alloc(0) })))
  await t.rejects(uploads.receive(id, sending({ declaredType: 'audio/ogg' })))
  t.match(await show(id), noteOf('unsupported_media_type'))
  await t.rejects(uploads.receive('019a0c3f-4b1e-7c00-8a6b-3f0f5b1c2d3e', sending()), { code: 'not_found' })
})

test('the size is judged to the byte, and what is refused is not read on', async t => {
  const { uploads } = domain()
  const exact = await newSlot()
  t.match(await uploads.receive(exact, sending({ bytes: wavOf(MAX_BYTES), declaredBytes: MAX_BYTES })), { voicemail: { fileBytes: MAX_BYTES } })
  const refused = await newSlot()
  for (const [asked, upload] of [
    [0, sending({ declaredBytes: MAX_BYTES + 1 })],
    [0, sending({ declaredType: 'audio/ogg; codecs=vorbis' })],
    [0, sending({ partType: 'audio/ogg' })],
    [1, sending({ bytes: Buffer.concat([Buffer.from('RIFX'), WAV]) })],
    [5, sending({ bytes: wavOf(MAX_BYTES * 3) })]
  ] as const) {
    await t.rejects(uploads.receive(refused, upload), AppError)
    t.equal(upload.asked, asked)
    t.equal(upload.ended, asked > 0, 'a source that was asked is told to let go')
  }
})

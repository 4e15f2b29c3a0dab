import { createHash } from 'node:crypto'
import { AppError } from '../errors.js'
import type { AudioStore } from '../stores/audio-store.js'
import type { VoicemailRow } from '../stores/tables.js'
import type { VoicemailStore } from '../stores/voicemail-store.js'
import { createAudioProbe } from './audio-probe.js'
import type { Clock } from './clock.js'
import { declaresAudioOf } from './media-type.js'
import { isStored, unknownVoicemail } from './stored-voicemail.js'

/** An upload as it arrives. */
export interface Upload {
  /** The type that the body declares, as far as it is known before the first byte. */
  declaredType: string | undefined
  /** More than this much will not come; undefined where that is not known. */
  declaredBytes: number | undefined
  /**
   * Begins to read. The audio as it comes, ending only when the whole request has ended well, and what the audio itself declares
   * to be (a multipart's part does so).
   */
  read: (signal: AbortSignal) => Promise<{ declaredType: string | undefined, chunks: AsyncIterable<Uint8Array> }>
}

/** `isRepeat` where the same bytes had been stored before. */
export interface Received { voicemail: VoicemailRow, isRepeat: boolean }

/** What a recorder does with a slot's upload URL. */
export interface Uploads {
  /**
   * Receives the audio of a slot. Resolves when it is durable, with the voicemail. Throws, in this order: `not_found`,
   * `unsupported_media_type`, `upload_too_large`, `already_uploaded`, `upload_in_progress`, and on the way `unsupported_audio`,
   * `insufficient_storage`, `not_found` when the slot is deleted, and whatever `read` throws. What fails leaves nothing but the
   * slot's note of it.
   */
  receive: (id: string, upload: Upload) => Promise<Received>
  /** Ends an upload under way to a slot that is gone. */
  cancel: (id: string) => void
  isReceiving: (id: string) => boolean
  /** Resolves when no upload runs. */
  settled: () => Promise<void>
}

export interface UploadsDependencies { voicemailStore: VoicemailStore, audioStore: AudioStore, clock: Clock }

export function createUploads ({ voicemailStore, audioStore, clock }: UploadsDependencies): Uploads {
  const running = new Map<string, AbortController>()
  const whenSettled: Array<() => void> = []

  async function store (slot: VoicemailRow, chunks: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<VoicemailRow> {
    const probe = createAudioProbe(slot.contentType)
    let durationMs = 0
    async function * looked (): AsyncGenerator<Uint8Array> {
      const limit = sizeLimit(slot)
      for await (const chunk of chunks) {
        limit(chunk)
        probe.feed(chunk)
        yield chunk
      }
      ({ durationMs } = probe.end())
    }
    return await audioStore.write(looked(), async file => {
      signal.throwIfAborted()
      return await voicemailStore.markStored(slot.id, { ...file, durationMs }, clock()) ?? unknownVoicemail()
    })
  }

  /** Takes what is allowed to come, or throws what keeps it from coming. */
  async function begin (id: string, upload: Upload): Promise<VoicemailRow> {
    const slot = await voicemailStore.find(id) ?? unknownVoicemail()
    requireType(slot, upload.declaredType)
    requireSize(slot, upload.declaredBytes ?? 0)
    return slot
  }

  return {
    receive: async (id, upload) => {
      if (running.has(id)) {
        await begin(id, upload)
        throw new AppError('upload_in_progress', 'Another upload to this slot is under way.')
      }
      const controller = new AbortController()
      running.set(id, controller)
      try {
        const slot = await begin(id, upload)
        const { declaredType, chunks } = await upload.read(controller.signal)
        requireType(slot, declaredType)
        return isStored(slot)
          ? { voicemail: await compare(slot, chunks), isRepeat: true }
          : { voicemail: await store(slot, chunks, controller.signal), isRepeat: false }
      } catch (error) {
        await noteFailure(voicemailStore, id, error, clock())
        throw error
      } finally {
        running.delete(id)
        if (running.size === 0) for (const resolve of whenSettled.splice(0)) resolve()
      }
    },
    cancel: id => { running.get(id)?.abort(new AppError('not_found', 'This voicemail has been deleted.')) },
    isReceiving: id => running.has(id),
    settled: async () => {
      if (running.size > 0) await new Promise<void>(resolve => { whenSettled.push(resolve) })
    }
  }
}

/** A recorder that lost the answer may send the same bytes again; they are only looked at. */
async function compare (voicemail: VoicemailRow, chunks: AsyncIterable<Uint8Array>): Promise<VoicemailRow> {
  const hash = createHash('sha256')
  const limit = sizeLimit(voicemail)
  for await (const chunk of chunks) {
    limit(chunk)
    hash.update(chunk)
  }
  if (hash.digest('hex') === voicemail.sha256) return voicemail
  throw new AppError('already_uploaded', 'This slot has been filled with other audio.')
}

/** Counts the chunks that it is given, and throws when they are more than the slot takes. */
function sizeLimit (slot: VoicemailRow): (chunk: Uint8Array) => void {
  let bytes = 0
  return chunk => {
    bytes += chunk.byteLength
    requireSize(slot, bytes)
  }
}

function requireType (slot: VoicemailRow, declared: string | undefined): void {
  if (declaresAudioOf(slot.contentType, declared)) return
  throw new AppError('unsupported_media_type', `This slot was opened for ${slot.contentType}.`, {
    expected: slot.contentType, found: (declared ?? '').slice(0, 100)
  })
}

function requireSize (slot: VoicemailRow, bytes: number): void {
  if (bytes <= slot.maxUploadBytes) return
  throw new AppError('upload_too_large', `This slot takes at most ${slot.maxUploadBytes} bytes.`, { expected: slot.maxUploadBytes, found: bytes })
}

/** Keeps what ended the attempt, in the words that the sender was told; never in the way of that answer. */
async function noteFailure (voicemailStore: VoicemailStore, id: string, error: unknown, atMs: number): Promise<void> {
  const { code, message } = error instanceof AppError ? error : new AppError('internal_error', 'Something went wrong here.')
  await voicemailStore.noteFailure(id, { failureCode: code, failureDetail: message, failureAtMs: atMs }).catch(() => {})
}

import { randomInt } from 'node:crypto'
import { v7 as uuidv7 } from 'uuid'
import { AppError } from '../errors.js'
import type { AudioStore, OpenFile } from '../stores/audio-store.js'
import type { VoicemailRow } from '../stores/tables.js'
import type { Deletion, VoicemailFilter, VoicemailPage, VoicemailStore } from '../stores/voicemail-store.js'
import type { Clock } from './clock.js'
import type { AudioType } from './media-type.js'
import { removeFiles } from './removed-files.js'
import { parseSipAddress } from './sip-address.js'
import { judgeSlot, requireFreeDisk, type SlotLimits } from './slot-limits.js'
import { isStored, unknownVoicemail, type StoredVoicemail } from './stored-voicemail.js'
import type { Uploads } from './uploads.js'

/** What an owner does with voicemails, and what a recorder does before the upload. */
export interface Voicemails {
  /** Opens a slot. Throws `validation_failed`, `insufficient_storage`, `quota_exceeded`. */
  openSlot: (accountId: number, slot: { sipFrom: string, contentType: AudioType }) => Promise<VoicemailRow>
  list: (accountId: number, filter: VoicemailFilter, page: { before: string | undefined, limit: number }) => Promise<VoicemailPage>
  /** Throws `not_found`, for what is no UUID too. */
  show: (accountId: number, id: string) => Promise<VoicemailRow>
  exists: (accountId: number, id: string) => Promise<boolean>
  /** Throws `not_found`, `voicemail_pending`. */
  markRead: (accountId: number, id: string, read: boolean) => Promise<VoicemailRow>
  /** Takes row and file away, and ends an upload under way. Throws `not_found`. */
  remove: (accountId: number, id: string, by: Pick<Deletion, 'caller' | 'address'>) => Promise<void>
  /** The audio behind a download URL. Throws `not_found`, `audio_lost`. */
  openAudio: (id: string) => Promise<{ voicemail: StoredVoicemail, file: OpenFile }>
  /** Where the audio of a voicemail is below the folder of audio, for a server that sends it itself. */
  relativePath: (voicemail: StoredVoicemail) => string
  /** Throws `insufficient_storage` where the disk has less room than the floor, after what open slots may still need. */
  requireDisk: () => Promise<void>
}

export interface VoicemailsDependencies {
  voicemailStore: VoicemailStore
  audioStore: AudioStore
  uploads: Pick<Uploads, 'cancel'>
  clock: Clock
  limits: SlotLimits
  uploadUrlTtlMs: number
}

export function createVoicemails (deps: VoicemailsDependencies): Voicemails {
  const { voicemailStore, audioStore, uploads, clock, limits } = deps
  const newId = createIds(clock)

  return {
    requireDisk: async () => { requireFreeDisk(limits, await audioStore.freeBytes(), (await voicemailStore.openSlots(clock())).bytes) },
    relativePath: ({ fileName }) => audioStore.relativePath(fileName),
    openSlot: async (accountId, { sipFrom, contentType }) => {
      const from = parseSipAddress(sipFrom)
      if (from === undefined) {
        const sentence = 'must be a SIP address, such as sip:alice@sip.example.org'
        throw new AppError('validation_failed', `sip_from ${sentence}.`, { errors: { sip_from: [sentence] } })
      }
      const freeBytes = await audioStore.freeBytes()
      const createdAtMs = clock()
      return await voicemailStore.addSlot({
        id: newId(),
        accountId,
        sipFrom: from.uri,
        contentType,
        maxUploadBytes: limits.maxUploadBytes,
        createdAtMs,
        expiresAtMs: Math.floor((createdAtMs + deps.uploadUrlTtlMs) / 1000) * 1000
      }, usage => { judgeSlot(limits, freeBytes, usage) })
    },
    list: async (accountId, filter, page) => await voicemailStore.list(accountId, filter, page),
    show: async (accountId, id) => await voicemailStore.findOf(accountId, id) ?? unknownVoicemail(),
    exists: async (accountId, id) => await voicemailStore.findOf(accountId, id) !== undefined,
    markRead: async (accountId, id, read) => {
      const { uploadedAtMs } = await voicemailStore.findOf(accountId, id) ?? unknownVoicemail()
      if (uploadedAtMs === null) throw new AppError('voicemail_pending', 'Nothing has been uploaded to this voicemail yet.')
      return await voicemailStore.markRead(id, read ? clock() : null) ?? unknownVoicemail()
    },
    remove: async (accountId, id, by) => {
      const { fileName } = await voicemailStore.remove(accountId, id, { ...by, atMs: clock() }) ?? unknownVoicemail()
      uploads.cancel(id)
      if (fileName !== null) await removeFiles(deps, [fileName])
    },
    openAudio: async id => {
      const voicemail = await voicemailStore.find(id)
      if (voicemail === undefined || !isStored(voicemail)) return unknownVoicemail()
      const file = await audioStore.open(voicemail.fileName)
      if (file?.fileBytes === voicemail.fileBytes) return { voicemail, file }
      file?.close()
      // Deleted between the two looks, or lost by the disk.
      if (await voicemailStore.find(id) === undefined) return unknownVoicemail()
      throw new AppError('audio_lost', 'The audio of this voicemail is no longer on the disk as it was stored.')
    }
  }
}

/** UUIDs of version 7 (RFC 9562 section 5.7) that sort in the order in which they were made, within one millisecond too. */
function createIds (clock: Clock): () => string {
  let msecs = 0
  let seq = 0
  return () => {
    const now = clock()
    if (now > msecs) {
      msecs = now
      seq = randomInt(2 ** 31)
    } else {
      seq += 1
    }
    return uuidv7({ msecs, seq })
  }
}

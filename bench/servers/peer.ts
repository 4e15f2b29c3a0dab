import { randomUUID } from 'node:crypto'
import type { Audio } from '../audio.js'
import type { Load } from '../client.js'
import type { ServerProcess, Stage } from '../stage.js'

/** A server that voicemaild is compared with. */
export interface Peer {
  name: string
  start: (stage: Stage, folder: string) => Promise<RunningPeer>
  /** The target of a file that was put into the folder `files` before the start; undefined where files come in by `fill`, or never. */
  downloadTarget?: (fileName: string) => string
}

export interface RunningPeer {
  server: ServerProcess
  /** Uploads for one run: so many at most. */
  upload: (audio: Audio, count: number) => Load | Promise<Load>
  /** Uploads so many files, and returns the targets of their downloads. */
  fill?: (audio: Audio, count: number) => Promise<string[]>
}

/** The audio as the body, each to a target of its own. */
export function rawUpload ({ file }: Audio, targets: readonly string[]): Load {
  return { method: 'PUT', headers: { 'content-type': 'audio/wav' }, targets, use: 'once', status: 201, bodyFile: file }
}

/** The audio in a form, all to the same target. */
export function formUpload ({ formFile, formType }: Audio): Load {
  return { method: 'POST', headers: { 'content-type': formType }, targets: ['/voicemails'], use: 'around', status: 201, bodyFile: formFile }
}

export function newTargets (count: number, targetOf: (id: string) => string): string[] {
  return Array.from({ length: count }, () => targetOf(randomUUID()))
}

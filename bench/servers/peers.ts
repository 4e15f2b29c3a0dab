import { randomUUID } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { signatureOf } from '../peers/signature.js'
import type { Audio } from '../audio.js'
import type { Load } from '../client.js'
import { freePort, type ServerProcess, type Stage } from '../stage.js'
import { nginxConfig } from './nginx.js'

/** A server that voicemaild is compared with. What it serves is in the folder `files` of its own folder. */
export interface Peer {
  name: string
  start: (stage: Stage, folder: string) => Promise<ServerProcess>
  upload: (audio: Audio, count: number) => Load
  /** The target of a file; undefined where downloads are not compared. */
  downloadTarget?: (fileName: string) => string
}

const SIGNING_KEY = 'bench-signing-key-of-at-least-32-characters'
const PEERS_FOLDER = fileURLToPath(new URL('../peers/', import.meta.url))

const nginx: Peer = {
  name: 'nginx',
  start: async (stage, folder) => {
    const port = await freePort()
    const config = join(folder, 'nginx.conf')
    await mkdir(join(folder, 'files'), { recursive: true })
    await mkdir(join(folder, 'incoming'))
    await writeFile(config, nginxConfig(folder, port))
    return await stage.startServer({ program: 'nginx', args: ['-c', config, '-p', folder], port })
  },
  upload: (audio, count) => ({
    ...rawUpload(audio),
    // Spread over folders, as voicemaild spreads them.
    targets: targets(count, id => `/files/${id.slice(0, 2)}/${id}.wav`)
  }),
  downloadTarget: fileName => `/files/${fileName}`
}

function nodeHttp (name: string, isSynced: boolean): Peer {
  const expires = String(Math.floor(Date.now() / 1000) + 24 * 3600)
  const signed = (method: string, fileName: string): string =>
    `/files/${fileName}?expires=${expires}&signature=${signatureOf(SIGNING_KEY, method, fileName, expires)}`
  return {
    name,
    start: async (stage, folder) => await startScript(stage, folder, 'node-http.js', { SIGNING_KEY, SYNCED: isSynced ? '1' : '0' }),
    upload: (audio, count) => ({ ...rawUpload(audio), targets: targets(count, id => signed('PUT', `${id}.wav`)) }),
    downloadTarget: fileName => signed('GET', fileName)
  }
}

const fastify: Peer = {
  name: 'Fastify recipe',
  start: async (stage, folder) => await startScript(stage, folder, 'fastify.js'),
  upload: audio => formUpload(audio),
  downloadTarget: fileName => `/files/${fileName}`
}

const express: Peer = {
  name: 'Express with multer',
  start: async (stage, folder) => await startScript(stage, folder, 'express.js'),
  upload: audio => formUpload(audio),
  downloadTarget: fileName => `/files/${fileName}`
}

const tus: Peer = {
  name: '@tus/server',
  start: async (stage, folder) => await startScript(stage, folder, 'tus.js'),
  upload: audio => ({
    method: 'POST',
    headers: { 'tus-resumable': '1.0.0', 'upload-length': String(audio.bytes.length), 'content-type': 'application/offset+octet-stream' },
    targets: ['/files'],
    use: 'around',
    status: 201,
    bodyFile: audio.file
  })
}

export const PEERS = { nginx, nodeHttp: nodeHttp('node:http', false), nodeHttpSynced: nodeHttp('node:http synced', true), fastify, express, tus } as const

/** Starts one of the programs in bench/peers, with its folder in DATA_DIR. */
export async function startScript (stage: Stage, folder: string, script: string, env: Record<string, string> = {}): Promise<ServerProcess> {
  const port = await freePort()
  return await stage.startServer({ program: process.execPath, args: [join(PEERS_FOLDER, script)], env: { DATA_DIR: folder, PORT: String(port), ...env }, port })
}

function rawUpload ({ file }: Audio): Omit<Load, 'targets'> {
  return { method: 'PUT', headers: { 'content-type': 'audio/wav' }, use: 'once', status: 201, bodyFile: file }
}

function formUpload ({ formFile, formType }: Audio): Load {
  return { method: 'POST', headers: { 'content-type': formType }, targets: ['/voicemails'], use: 'around', status: 201, bodyFile: formFile }
}

function targets (count: number, targetOf: (id: string) => string): string[] {
  return Array.from({ length: count }, () => targetOf(randomUUID()))
}

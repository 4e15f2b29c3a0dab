import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { signatureOf } from '../peers/signature.js'
import { freePort } from '../../test/free-port.js'
import type { ServerProcess, Stage } from '../stage.js'
import { ejabberd } from './ejabberd.js'
import { nginx } from './nginx.js'
import { formUpload, newTargets, rawUpload, type Peer } from './peer.js'

const SIGNING_KEY = 'bench-signing-key-of-at-least-32-characters'
const PEERS_FOLDER = fileURLToPath(new URL('../peers/', import.meta.url))

const EXPIRES = String(Math.floor(Date.now() / 1000) + 24 * 3600)

function signedTarget (method: string, fileName: string): string {
  return `/files/${fileName}?expires=${EXPIRES}&signature=${signatureOf(SIGNING_KEY, method, fileName, EXPIRES)}`
}

function nodeHttp (name: string, isSynced: boolean): Peer {
  return {
    name,
    start: async (stage, folder) => ({
      server: await startScript(stage, folder, 'node-http.js', { SIGNING_KEY, SYNCED: isSynced ? '1' : '0' }),
      upload: (audio, count) => rawUpload(audio, newTargets(count, id => signedTarget('PUT', `${id}.wav`)))
    }),
    downloadTarget: fileName => signedTarget('GET', fileName)
  }
}

const fastify: Peer = {
  name: 'Fastify recipe',
  start: async (stage, folder) => ({ server: await startScript(stage, folder, 'fastify.js'), upload: formUpload }),
  downloadTarget: fileName => `/files/${fileName}`
}

/** No peer in earnest: it stores nothing. */
const hashing: Peer = {
  name: 'Fastify, hashing only',
  start: async (stage, folder) => ({
    server: await startScript(stage, folder, 'hashing.js', { SIGNING_KEY }),
    upload: (audio, count) => rawUpload(audio, newTargets(count, id => signedTarget('PUT', `${id}.wav`)))
  })
}

const express: Peer = {
  name: 'Express with multer',
  start: async (stage, folder) => ({ server: await startScript(stage, folder, 'express.js'), upload: formUpload }),
  downloadTarget: fileName => `/files/${fileName}`
}

const tus: Peer = {
  name: '@tus/server',
  start: async (stage, folder) => ({
    server: await startScript(stage, folder, 'tus.js'),
    // The whole file with the creation: one request.
    upload: audio => ({
      method: 'POST',
      headers: { 'tus-resumable': '1.0.0', 'upload-length': String(audio.bytes.length), 'content-type': 'application/offset+octet-stream' },
      targets: ['/files'],
      use: 'around',
      status: 201,
      bodyFile: audio.file
    })
  })
}

export const PEERS = { nginx, nodeHttp: nodeHttp('node:http', false), nodeHttpSynced: nodeHttp('node:http synced', true), fastify, hashing, express, tus, ejabberd } as const

/** Starts one of the programs in bench/peers, with its folder in DATA_DIR. */
export async function startScript (stage: Stage, folder: string, script: string, env: Record<string, string> = {}): Promise<ServerProcess> {
  const port = await freePort()
  return await stage.startServer({ program: process.execPath, args: [join(PEERS_FOLDER, script)], env: { NODE_ENV: 'production', DATA_DIR: folder, PORT: String(port), ...env }, port })
}

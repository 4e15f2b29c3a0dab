import { readFileSync, writeSync } from 'node:fs'
import { openData } from '../../src/commands/data.js'
import { readConfig } from '../../src/config.js'
import { recover } from '../../src/domain/recovery.js'
import { createUploads } from '../../src/domain/uploads.js'
import { createVoicemails } from '../../src/domain/voicemails.js'
import { watchDisk } from './disk-steps.js'

/** What this program would have answered, a line each. */
export type Acknowledgement =
  | { did: 'recovered', steps: number }
  | { did: 'opened' | 'stored', id: string, account: number }
  | { did: 'deleted', id: string, account: number, steps: number }

/**
 * Works on a data folder and dies (SIGKILL) right before step N, or after the last; what it would have answered it prints before it goes
 * on. Arguments: the data folder, the part (`recovery`: from opening the folder on; `work`: an upload and its deletion), N, and a WAV file, which
 * is uploaded with the slot's id at its end.
 */
const [dataFolder = '', part = '', deadly = '', audioFile = ''] = process.argv.slice(2)
let steps = 0
let isCounting = part === 'recovery'
await watchDisk({
  before: ({ operation, path }) => {
    // To look at something, or to open and close a folder, leaves the disk as it was.
    if (/^(close|readdir)$/.test(operation) || (operation === 'open' && /\/audio(\/..)?$/.test(path))) return
    if (isCounting && path.startsWith(dataFolder) && ++steps === Number(deadly)) process.kill(process.pid, 'SIGKILL')
  }
})

const say = (acknowledgement: Acknowledgement): void => { writeSync(1, `${JSON.stringify(acknowledgement)}\n`) }
const config = readConfig({ DATA_DIR: dataFolder, MIN_FREE_DISK: '0', ADMIN_API_KEY: 'x'.repeat(32) })
const data = await openData(config, Date.now)
await recover(data)
if (part === 'recovery') {
  say({ did: 'recovered', steps })
  process.kill(process.pid, 'SIGKILL')
}

const uploads = createUploads(data)
const voicemails = createVoicemails({ ...data, ...config, uploads })
const account = await data.accountStore.add({
  sipUri: 'sip:bob@sip.example.org', addressKey: dataFolder + deadly, username: 'bob', domain: 'sip.example.org', createdAtMs: Date.now()
})
if (account === undefined) throw new Error('the account is there already')
const { id } = await voicemails.openSlot(account.id, { sipFrom: 'sip:alice@sip.example.org', contentType: 'audio/wav' })
async function * chunks (): AsyncGenerator<Uint8Array> { yield Buffer.concat([readFileSync(audioFile), Buffer.from(id)]) }

say({ did: 'opened', id, account: account.id })
isCounting = true
await uploads.receive(id, { declaredType: 'audio/wav', declaredBytes: undefined, read: async () => ({ declaredType: undefined, chunks: chunks() }) })
say({ did: 'stored', id, account: account.id })
await voicemails.remove(account.id, id, { caller: 'test', address: null })
say({ did: 'deleted', id, account: account.id, steps })
process.kill(process.pid, 'SIGKILL')

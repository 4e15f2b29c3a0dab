import { access, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { Settings } from '../../src/config.js'
import { DEPLOY, run } from './scripts.js'

const PAGES = ['upload.md', 'flexisip.md', 'asterisk.md', 'freeswitch.md', 'kamailio.md']

/** Settings of voicemaild that a page for SIP servers may name though the uploader does not know them. */
const SERVER_SETTINGS = new Set([...Object.keys(Settings.properties), 'TLS_CERT_FILE', 'TLS_KEY_FILE'])

t.test('the page has every setting of the uploader, with its default, and no other', async t => {
  const page = await readFile(join(DEPLOY, 'upload.md'), 'utf8')
  const rows = [...page.matchAll(/^\| `(VOICEMAILD_[A-Z_]+)` \| (.*?) \| (.*) \|$/gm)]
  const script = await readFile(join(DEPLOY, 'voicemail-upload'), 'utf8')
  t.strictSame(rows.map(([, name]) => name).sort(), [...script.matchAll(/^ {2}\[(VOICEMAILD_[A-Z_]+)\]=/gm)].map(([, name]) => name).sort())
  for (const [, name = '', byDefault = '', meaning = ''] of rows) {
    t.match(meaning, /\S\.$/, `the meaning of ${name}`)
    if (name === 'VOICEMAILD_API_KEY') continue
    const { out } = await run(join(DEPLOY, 'voicemail-upload'), ['--setting', name], { env: { VOICEMAILD_UPLOAD_ENV: '/nonexistent' } })
    t.equal(byDefault === 'none' ? '' : byDefault.replaceAll('`', ''), out.trim(), `the default of ${name}`)
  }
})

t.test('the page has every exit code of the uploader, and no other', async t => {
  const page = await readFile(join(DEPLOY, 'upload.md'), 'utf8')
  const script = await readFile(join(DEPLOY, 'voicemail-upload'), 'utf8')
  const codes = new Set([...script.matchAll(/\bfail (\d+)|exit_code=(\d+)/g)].map(([, failed, told]) => Number(failed ?? told)))
  t.strictSame([...page.matchAll(/^\| (\d+) \|/gm)].map(([, code]) => Number(code)), [0, ...codes].sort((a, b) => a - b))
})

t.test('every file that the pages link to is there, and every setting that they name', async t => {
  for (const name of PAGES) {
    const page = await readFile(join(DEPLOY, name), 'utf8')
    for (const [, link = ''] of page.matchAll(/\]\(([^)\s]+)\)/g)) await t.resolves(access(join(DEPLOY, link)), `${name}: ${link}`)
    for (const [, setting = ''] of page.matchAll(/`([A-Z]+_[A-Z_]+)`/g)) {
      if (setting.startsWith('VOICEMAILD_') || setting === 'WITH_VOICEMAIL' || setting === 'CURL_CA_BUNDLE' || setting.startsWith('DESTINATION_')) continue
      t.ok(SERVER_SETTINGS.has(setting), `${name}: ${setting}`)
    }
  }
})

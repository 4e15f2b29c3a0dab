import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { DEPLOY, run } from '../test/deploy/scripts.js'

t.test('the scripts for SIP servers are ones that shellcheck and bash have nothing to say against', async t => {
  for (const name of ['voicemail-upload', 'voicemail-spool', 'asterisk-voicemail.sh']) {
    const file = join(DEPLOY, name)
    t.match(await readFile(file, 'utf8'), /^#!\/usr\/bin\/env bash\n/)
    t.strictSame(await run('bash', ['-n', file]), { code: 0, out: '', err: '' })
    t.strictSame(await run('shellcheck', [file]), { code: 0, out: '', err: '' })
  }
})

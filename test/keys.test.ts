import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { openKeys } from '../src/keys.js'

t.test('the keys are made once, for their owner alone, and read again after', async t => {
  const dataFolder = t.testdir()
  const made = openKeys({ dataFolder, signingKey: undefined, adminKey: undefined })
  t.match(made.signingKey, /^[\w-]{43}$/, '256 random bits')
  t.match(made.adminKey, /^vm_[\w-]{40}$/, '240 random bits')
  t.equal(made.adminKeyFile, join(dataFolder, 'admin-api-key'))
  t.strictSame(openKeys({ dataFolder, signingKey: undefined, adminKey: undefined }), made)
  t.strictSame((await readdir(dataFolder)).sort(), ['admin-api-key', 'signing-key'])
  for (const name of ['admin-api-key', 'signing-key']) t.equal((await stat(join(dataFolder, name))).mode & 0o777, 0o600, name)
  t.equal(await readFile(join(dataFolder, 'admin-api-key'), 'utf8'), `${made.adminKey}\n`, 'with one line end, for cat')

  const other = openKeys({ dataFolder: t.testdir({ other: {} }), signingKey: undefined, adminKey: undefined })
  t.not(other.signingKey, made.signingKey, 'another installation has another')
  t.not(other.adminKey, made.adminKey)
})

t.test('a key from a setting goes before the file, and no file is made for it', async t => {
  const dataFolder = t.testdir()
  const given = { signingKey: 's'.repeat(32), adminKey: 'a'.repeat(32) }
  t.strictSame(openKeys({ dataFolder, ...given }), { ...given, adminKeyFile: undefined })
  t.strictSame(await readdir(dataFolder), [])
  const { adminKey } = openKeys({ dataFolder, signingKey: given.signingKey, adminKey: undefined })
  t.strictSame(await readdir(dataFolder), ['admin-api-key'])
  t.equal(openKeys({ dataFolder, ...given }).adminKey, given.adminKey)
  t.equal(openKeys({ dataFolder, ...given, adminKey: undefined }).adminKey, adminKey)
})

t.test('a key file with less than 32 characters is refused in one line, without telling them, and stays as it is', async t => {
  for (const content of ['', '\n', 'hunter2\n', `${'x'.repeat(31)}\n\n`]) {
    const dataFolder = t.testdir({ 'signing-key': content })
    t.throws(() => openKeys({ dataFolder, signingKey: undefined, adminKey: 'a'.repeat(32) }), {
      message: `${join(dataFolder, 'signing-key')}: expected a secret of at least 32 characters, found ${content.trim().length}.`
    })
    t.equal(await readFile(join(dataFolder, 'signing-key'), 'utf8'), content)
  }
  const dataFolder = t.testdir()
  await writeFile(join(dataFolder, 'signing-key'), `  ${'x'.repeat(32)}\r\n`)
  t.equal(openKeys({ dataFolder, signingKey: undefined, adminKey: 'a'.repeat(32) }).signingKey, 'x'.repeat(32), 'blanks around it do not count')
})

t.test('processes that make them at the same time agree', async t => {
  const dataFolder = t.testdir()
  const script = `
    import { openKeys } from ${JSON.stringify(new URL('../src/keys.ts', import.meta.url).href)}
    process.stdout.write('ready\\n')
    for await (const _ of process.stdin) {}
    process.stdout.write(JSON.stringify(openKeys({ dataFolder: ${JSON.stringify(dataFolder)} })))
  `
  const processes = ['one', 'two', 'three'].map(() => spawn(process.execPath, ['--import=tsx', '--input-type=module', '-e', script], { stdio: ['pipe', 'pipe', 'inherit'] }))
  await Promise.all(processes.map(async ({ stdout }) => { await once(stdout, 'readable') }))
  const outputs = processes.map(async ({ stdout }) => await text(stdout))
  for (const { stdin } of processes) stdin.end()
  const found = (await Promise.all(outputs)).map(output => JSON.parse(output.replace('ready\n', '')))
  t.strictSame(found, found.map(() => openKeys({ dataFolder, signingKey: undefined, adminKey: undefined })))
  t.strictSame((await readdir(dataFolder)).sort(), ['admin-api-key', 'signing-key'], 'and leave nothing else')
})

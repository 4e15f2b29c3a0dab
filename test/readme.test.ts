import { execFile } from 'node:child_process'
import { access, readdir, readFile, symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import type { TSchema } from 'typebox'
import { runProgram } from '../src/commands/program.js'
import { Settings } from '../src/config.js'
import { STATUS_OF } from '../src/plugins/problems.js'
import { firstVoicemail } from './first-voicemail.js'
import { startService } from './helper.js'
import { startServer } from './process.js'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const README = await readFile(join(ROOT, 'README.md'), 'utf8')

/** What stands under a heading of the second level. */
function section (heading: string): string {
  const [, text] = README.split(new RegExp(`^## ${heading}\n`, 'm'))
  if (text === undefined) throw new Error(`The README has no section "${heading}".`)
  return text.split(/^## /m, 1)[0] ?? ''
}

/** The cells of a section's table, without its head. */
function rows (heading: string): string[][] {
  return section(heading).split('\n').filter(line => line.startsWith('|')).slice(2)
    .map(line => line.replaceAll('\\|', '\0').split('|').slice(1, -1).map(cell => cell.replaceAll('\0', '|').trim()))
}

/** What stands in backquotes at the beginning of a cell. */
const code = (cell = ''): string => /^`([^`]+)`/.exec(cell)?.[1] ?? cell

t.test('the README has every setting, with its default and its unit, and no other', async t => {
  const table = rows('Settings')
  t.strictSame(table.map(([name]) => code(name)), Object.keys(Settings.properties), 'in their order')
  const schemas: Record<string, TSchema & { default?: unknown, unit?: string }> = Settings.properties
  for (const [name = '', byDefault = '', meaning = ''] of table) {
    const { default: value, unit = '' } = schemas[code(name)] ?? {}
    t.equal(byDefault, value === undefined ? byDefault.replaceAll('`', '') : `\`${value}\` ${unit}`.trim(), `the default of ${name}`)
    t.match(byDefault, /\S/)
    t.match(meaning, /\S.*\.$/, `the meaning of ${name}`)
  }
})

t.test('the README has every route of the app, and no other', async t => {
  const service = await startService(t)
  const { body: { paths } } = await service.call('GET', '/openapi.json')
  const routes = Object.entries<object>(paths).flatMap(([path, operations]) => Object.keys(operations).map(method => `${method.toUpperCase()} ${path}`))
    .filter(route => !route.startsWith('HEAD '))
  t.strictSame(rows('API').map(([request]) => code(request)).sort(), [...routes, 'GET /docs', 'GET /openapi.json'].sort())
  t.equal((await service.call('GET', '/docs')).status, 200)
})

t.test('the README has every error code with its status, and no other', async t => {
  t.strictSame(Object.fromEntries(rows('Errors').map(([name, status]) => [code(name), Number(status)])), STATUS_OF)
  for (const [name, , when] of rows('Errors')) t.match(when, /\S.*\.$/, `when ${name} comes`)
})

t.test('the README has every command with its options, and no other', async t => {
  const helpOf = async (words: string[]): Promise<string> => {
    const lines: string[] = []
    await runProgram({ args: [...words, '--help'], env: {}, clock: Date.now, output: { print: line => { lines.push(line) }, tell: line => { lines.push(line) } } })
    return lines.join('\n')
  }
  const leaves = async (words: string[]): Promise<Array<{ command: string, help: string }>> => {
    const help = await helpOf(words)
    const [, list = ''] = help.split('\nCommands:\n')
    const names = [...list.matchAll(/^ {2}([a-z-]+)/gm)].map(([, name = '']) => name).filter(name => name !== 'help')
    if (names.length === 0) return [{ command: ['voicemaild', ...words].join(' '), help }]
    return (await Promise.all(names.map(async name => await leaves([...words, name])))).flat()
  }
  const commands = await leaves([])
  t.ok(commands.length >= 9, 'the commands were found')
  const table = rows('Command line')
  t.strictSame(table.map(([line]) => /^[a-z]+(?: [a-z][a-z-]*)*/.exec(code(line))?.[0]), commands.map(({ command }) => command))
  for (const [at, { command, help }] of commands.entries()) {
    const [line, meaning] = table[at] ?? []
    t.match(meaning, /\S.*\.$/, `what ${command} does`)
    const [usage] = help.split('\n', 1)
    for (const [, argument = ''] of (usage ?? '').matchAll(/<([^>]+)>/g)) t.match(line?.toLowerCase(), argument, `${command} <${argument}>`)
    for (const [flag] of help.matchAll(/(?<=^ {2}(-\w, )?)--[a-z-]+/gm)) {
      if (flag === '--help') continue
      t.match(flag === '--json' ? section('Command line') : line, flag, `${command} ${flag}`)
    }
  }
  for (const [flag] of (await helpOf([])).matchAll(/(?<=^ {2}(-\w, )?)--[a-z-]+/gm)) t.match(section('Command line'), `\`${flag}`, flag)
})

t.test('the two commands of the README are there, and every file that it links to', async t => {
  const { scripts } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'))
  t.strictSame([...section('Start').matchAll(/^```sh\n([^]*?)^```/gm)].map(([, block]) => block), ['npm ci && npm start\n', 'npm ci && npm test\n'])
  t.match(scripts, { start: /serve/, test: /tap/, prepare: /build/ })
  const links = [...README.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = '']) => link).filter(link => !/^https?:/.test(link))
  t.ok(links.length > 0, 'links were found')
  for (const link of links) {
    const [path = '', anchor] = link.split('#')
    await t.resolves(access(join(ROOT, path)), link)
    if (anchor !== undefined && path === '') {
      t.ok([...README.matchAll(/^#+ (.*)$/gm)].some(([, title = '']) => title.toLowerCase().replaceAll(/[^\w -]/g, '').replaceAll(' ', '-') === anchor), link)
    }
  }
})

t.test('the first voicemail of the README can be pasted into a shell', async t => {
  const cwd = t.testdir()
  await symlink(join(ROOT, 'test'), join(cwd, 'test'))
  const server = await startServer(t, { cwd, settings: { PORT: '0', MIN_FREE_DISK: '0' } })
  const script = await firstVoicemail(server)
  const { stdout, stderr } = await promisify(execFile)('bash', ['-euo', 'pipefail', '-c', script], {
    cwd, env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env['PATH']}` }
  })
  t.equal(stderr, '')
  t.match(stdout, /^6\.712 seconds$/m)
  t.match(stdout, /^every byte of it$/m)
  t.match(stdout, /\{"id":"[0-9a-f-]{36}","deleted":true\}$/)
  t.strictSame((await readdir(cwd)).sort(), ['storage', 'test'], 'nothing is left lying about')
  const files = (await readdir(join(cwd, 'storage'), { recursive: true, withFileTypes: true })).filter(entry => entry.isFile())
  t.strictSame(files.filter(({ parentPath }) => /audio|incoming/.test(parentPath)), [], 'and the file is gone from the disk')
  t.equal(await server.stop('SIGTERM'), 0)
})

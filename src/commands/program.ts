import { readFileSync } from 'node:fs'
import { parseEnv } from 'node:util'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { readConfig, SettingError, type Config } from '../config.js'
import { createAccounts, type Accounts } from '../domain/accounts.js'
import type { Clock } from '../domain/clock.js'
import { describeProgram } from '../installation.js'
import { accountQuota, addAccount, importAccountFile, listAccounts, removeAccount, showAccount, type Limit } from './account.js'
import { withData } from './data.js'
import { addKey, checkNewKey, listKeys, removeKey } from './key.js'
import { printNginxConfig } from './nginx-config.js'
import { CommandError, UsageError, type Output } from './output.js'
import { serve } from './serve.js'
import { backUpData, checkData, restoreData, sweepData } from './upkeep.js'

export interface ProgramOptions {
  /** What stands after the program's name. */
  args: readonly string[]
  env: Readonly<Record<string, string | undefined>>
  clock: Clock
  output: Output
}

/** Runs one command line. Resolves with the exit code: 0, 1 for what could not be done, 2 for what could not be understood. */
export async function runProgram ({ args, ...options }: ProgramOptions): Promise<number> {
  const { program, exitCode } = createProgram(options)
  try {
    await program.parseAsync(args, { from: 'user' })
    return exitCode()
  } catch (error) {
    // Commander has said what it has to say.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    options.output.tell(`voicemaild: ${explain(error)}`)
    return error instanceof SettingError || error instanceof UsageError ? 2 : 1
  }
}

/** Every command there is, to run one or to tell of all. */
export function createProgram ({ env, clock, output }: Omit<ProgramOptions, 'args'>): { program: Command, exitCode: () => number } {
  let exitCode = 0
  const program = new Command('voicemaild')
    .description('A voicemail store for SIP: slots, signed upload and download URLs, audio on local disk.')
    .version(describeProgram())
    .option('--env-file <file>', 'read settings from a file; the environment goes before it')
    .exitOverride()
    .configureOutput({
      writeOut: text => { output.print(text.trimEnd()) },
      writeErr: text => { output.tell(text.trimEnd()) }
    })
  const config = (): Config => readConfig({ ...readEnvFile(program.opts<{ envFile?: string }>().envFile), ...env })
  const on = async (run: (accounts: Accounts) => Promise<void>): Promise<void> => { await withData(config(), clock, async data => { await run(createAccounts(data)) }) }

  program.command('serve').description('serve until SIGTERM or SIGINT')
    .action(async () => { await serve(config(), clock, output, env) })

  const account = program.command('account').description('who has voicemail here')
  account.command('add <sip-uri>').description('add an account').option('--email <address>', 'where its owner gets mail').option('--display-name <name>', 'its name for people').option('--json', 'for scripts')
    .action(async (sipUri: string, options) => { await on(async accounts => { await addAccount(accounts, output, sipUri, options) }) })
  account.command('list').description('list accounts, newest first').option('--json', 'for scripts')
    .action(async options => { await on(async accounts => { await listAccounts(accounts, output, options) }) })
  account.command('show <id-or-address>').description('show an account').option('--json', 'for scripts')
    .action(async (id: string, options) => { await on(async accounts => { await showAccount(accounts, output, id, options) }) })
  account.command('remove <id-or-address>').description('remove an account with its voicemails').option('--json', 'for scripts')
    .action(async (id: string, options) => { await on(async accounts => { await removeAccount(accounts, output, id, options) }) })
  account.command('import <file.csv>').description('add accounts from CSV: sip_uri, email, display_name').option('--json', 'for scripts')
    .action(async (file: string, options) => {
      await on(async accounts => { exitCode = await importAccountFile(accounts, output, file, options) ? 0 : 1 })
    })

  account.command('quota <id-or-address>').description('show or change what an account may hold')
    .option('--bytes <number>', 'default goes by the settings, 0 is no limit', parseLimit)
    .option('--messages <number>', 'default goes by the settings, 0 is no limit', parseLimit).option('--json', 'for scripts')
    .action(async (id: string, options) => { await on(async accounts => { await accountQuota(accounts, output, id, options) }) })

  const key = program.command('key').description('API keys')
  key.command('add').description('make a key; it is shown this once').requiredOption('--name <name>', 'what it is for')
    .addOption(new Option('--role <role>', 'what it may do').choices(['admin', 'user']).default('user'))
    .option('--account <id-or-address>', 'whose it is').option('--expires <date>', 'when it ends, ISO 8601').option('--json', 'for scripts')
    .action(async options => {
      checkNewKey(options)
      await on(async accounts => { await addKey(accounts, output, options) })
    })
  key.command('list').description('list keys').option('--account <id-or-address>', 'only of this account').option('--json', 'for scripts')
    .action(async options => { await on(async accounts => { await listKeys(accounts, output, options) }) })
  key.command('remove <key-id>').description('take a key back').option('--json', 'for scripts')
    .action(async (id: string, options) => { await on(async accounts => { await removeKey(accounts, output, id, options) }) })

  program.command('check').description('compare rows with files, both ways')
    .option('--deep', 'read every file against its SHA-256').option('--repair', 'quarantine strange files, mark lost audio').option('--json', 'for scripts')
    .action(async options => { exitCode = await checkData(config(), clock, output, options) ? 0 : 1 })
  program.command('backup <dir>').description('copy the data into a folder, while the server runs').option('--json', 'for scripts')
    .action(async (dir: string, options) => { exitCode = await backUpData(config(), clock, output, dir, options) ? 0 : 1 })
  program.command('restore <dir>').description('copy a backup into the data folder, which has to be empty').option('--json', 'for scripts')
    .action(async (dir: string, options) => { exitCode = await restoreData(config(), output, dir, options) ? 0 : 1 })
  program.command('sweep').description('remove expired slots, and voicemails past their retention').option('--dry-run', 'tell what would go').option('--json', 'for scripts')
    .action(async options => { await sweepData(config(), clock, output, options) })
  program.command('nginx-config').description('print a site of nginx in front of this server')
    .option('--server-name <name>', 'its host name, instead of that of PUBLIC_URL')
    .option('--certificate <file>', 'its certificate with the chain, PEM').option('--certificate-key <file>', 'the key of it, PEM')
    .action(options => { printNginxConfig(config(), output, options) })

  for (const command of [program, account, key].flatMap(group => [group, ...group.commands])) {
    command.configureOutput({ outputError: text => { output.tell(`voicemaild: ${explainUsage(text, command)}`) } })
  }
  return { program, exitCode: () => exitCode }
}

/** For the quota of one account: a number, or `default` for what the settings say. */
function parseLimit (text: string): Limit {
  if (text === 'default') return text
  const limit = Number(text)
  if (/^[0-9]+$/.test(text) && Number.isSafeInteger(limit)) return limit
  throw new InvalidArgumentError('Expected a whole number, or default.')
}

function readEnvFile (file: string | undefined): Record<string, string | undefined> {
  if (file === undefined) return {}
  try {
    return { ...parseEnv(readFileSync(file, 'utf8')) }
  } catch {
    throw new CommandError(`--env-file: ${file} cannot be read.`)
  }
}

/** What Commander says, on one line, and what it expected. */
function explainUsage (text: string, command: Command): string {
  const sentence = text.trim().replace(/^error: /, '').replaceAll(/\s*\n\s*/g, ' ')
  const help = command.createHelp()
  const known = sentence.startsWith('unknown option')
    ? help.visibleOptions(command).map(({ long }) => long)
    : sentence.startsWith('unknown command') ? help.visibleCommands(command).map(each => each.name()) : []
  return known.length === 0 ? sentence : `${sentence}, expected one of ${known.join(', ')}`
}

/** One line for people, whatever went wrong. */
function explain (error: unknown): string {
  return (error instanceof Error ? error.message || error.name : String(error)).replaceAll(/\s*\n\s*/g, ' ')
}

import type { Command } from 'commander'
import type { TSchema } from 'typebox'
import { Settings } from '../src/config.js'

type SettingSchema = TSchema & { description?: string, expected?: string, unit?: string, default?: unknown }

/** Every setting, with what a person is told of it. */
export function listSettings (): Array<{ name: string, meaning: string, byDefault: string }> {
  return Object.entries<SettingSchema>(Settings.properties).map(([name, { description = '', expected = '', unit = '', default: value }]) => ({
    name,
    meaning: `${description} Expected: ${expected}${unit === '' ? '' : ` (${unit})`}.`,
    byDefault: value === undefined ? '' : String(value)
  }))
}

/** The file of settings, in which only what is given is set; the rest is there to read. */
export function writeSettings (set: Record<string, string>): string {
  const settings = listSettings().map(({ name, meaning, byDefault }) => {
    const value = set[name]
    return `# ${meaning}\n${value === undefined ? `#${name}=${byDefault}` : `${name}=${value}`}\n`
  })
  return [
    '# Settings of voicemaild: NAME=value, as systemd reads it (EnvironmentFile) and as `voicemaild --env-file FILE` does.\n' +
    '# What is commented out shows its default. After a change: systemctl restart voicemaild\n',
    ...settings
  ].join('\n')
}

/** The manual page, of the commands and settings that there are. */
export function writeManual (program: Command, { version, date }: { version: string, date: Date }): string {
  const options = (command: Command): string[] => command.options.flatMap(({ flags, description }) => ['.TP', `.B ${escape(flags)}`, escape(description)])
  return [
    `.TH VOICEMAILD 8 ${date.toISOString().slice(0, 10)} "voicemaild ${version}" "System Administration"`,
    '.SH NAME', 'voicemaild \\- voicemail store for SIP',
    '.SH SYNOPSIS', '.B voicemaild', '[\\-\\-env\\-file', '.IR FILE ]', '.I COMMAND',
    '.SH DESCRIPTION', escape(program.description()),
    'It keeps its rows and files in one folder, and answers over HTTP. Commands work on that folder beside a running server.',
    '.SH OPTIONS', ...options(program),
    '.SH COMMANDS',
    ...leaves(program).flatMap(({ words, command }) => [
      `.SS ${escape([...words, command.usage().replace(/^\[options\] ?/, '')].join(' ').trim())}`, escape(sentence(command.description())), ...options(command)
    ]),
    '.SH ENVIRONMENT', 'The environment goes before the file of settings; an empty value counts as none.',
    ...listSettings().flatMap(({ name, meaning, byDefault }) => ['.TP', `.B ${escape(name)}`, escape(meaning + (byDefault === '' ? '' : ` Default: ${byDefault}.`))]),
    '.TP', '.BR CACHE_DIRECTORY ", " XDG_CACHE_HOME', 'Where the program unpacks what the system loads from files only: the first that is set, or ~/.cache.',
    '.SH FILES',
    '.TP', '.I /etc/voicemaild/voicemaild.env', 'Settings of the service.',
    '.TP', '.I /var/lib/voicemaild', 'Voicemails, and the secrets that were made at the first start.',
    '.TP', '.I /var/cache/voicemaild', 'What the program unpacked. It is made anew where it is missing.',
    '.SH EXIT STATUS', '0 for done, 1 for what could not be done, 2 for what could not be understood.',
    '.SH EXAMPLES', '.EX', 'sudo \\-u voicemaild voicemaild \\-\\-env\\-file /etc/voicemaild/voicemaild.env account list', '.EE', ''
  ].join('\n')
}

/** The commands that do something, with all their words. */
function leaves (command: Command, words: string[] = []): Array<{ words: string[], command: Command }> {
  const under = command.createHelp().visibleCommands(command).filter(each => each.name() !== 'help')
  return under.length === 0 ? [{ words, command }] : under.flatMap(each => leaves(each, [...words, each.name()]))
}

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`

/** For roff: a backslash, a hyphen that is typed, and what would be a request at the beginning of a line. */
const escape = (text: string): string => text.replaceAll('\\', '\\e').replaceAll('-', '\\-').replace(/^(?=[.'])/, '\\&')

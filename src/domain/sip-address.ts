import { isIPv4 } from 'node:net'

/** A SIP or SIPS URI, taken apart. Every part is as it was written, so that what is echoed is what the sender said. */
export interface SipAddress {
  scheme: 'sip' | 'sips'
  /** Without the password; undefined where the address is that of a host. */
  user: string | undefined
  /** A name, an IPv4 address, or an IPv6 address in its brackets. */
  host: string
  port: number | undefined
  /** Empty, or with its first semicolon: `;transport=tcp`. */
  parameters: string
  /** Empty, or with its question mark: `?subject=x`. */
  headers: string
  /** The whole address with its scheme: what is stored. */
  uri: string
}

/** Far above any address in use (RFC 3261 sets no limit), and low enough to be kept in every row and log line. */
export const MAX_SIP_ADDRESS_CHARS = 1024

// RFC 3261 section 25.1. No expression here can match one text in two ways, so none of them ever backtracks far.
const UNRESERVED = "A-Za-z0-9\\-_.!~*'()"
const PARAMETER_CHARS = `[${UNRESERVED}\\[\\]/:&+$]`
const HEADER_CHARS = `[${UNRESERVED}\\[\\]/?:+$]`
const USERINFO = new RegExp(`^([${UNRESERVED}&=+$,;?/]+)(?::[${UNRESERVED}&=+$,]*)?$`)
const PARAMETER = new RegExp(`^${PARAMETER_CHARS}+(?:=${PARAMETER_CHARS}+)?$`)
const HEADER = new RegExp(`^${HEADER_CHARS}+=${HEADER_CHARS}*$`)
const HOSTPORT = /^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::([0-9]+))?$/
const ESCAPE = /%[0-9A-Fa-f]{2}/g
const PLAIN = new RegExp(`^[${UNRESERVED}]$`)

/**
 * Reads a SIP address as RFC 3261 section 19.1 writes it; a bare `user@host` is taken as `sip:user@host`.
 * Undefined means that the text is none: it never throws, and its work is linear in the length of the text.
 */
export function parseSipAddress (text: string): SipAddress | undefined {
  if (text.length > MAX_SIP_ADDRESS_CHARS) return undefined
  const scheme = /^sips?(?=:)/i.exec(text)?.[0]
  const uri = scheme === undefined ? `sip:${text}` : text
  if (uri.length > MAX_SIP_ADDRESS_CHARS) return undefined

  const [userinfo, location] = partAtSign(uri.slice(uri.indexOf(':') + 1))
  // A colon before the @ of a bare address is another scheme (`mailto:alice@example.org`), not a password.
  if (scheme === undefined && (userinfo === undefined || userinfo.includes(':'))) return undefined
  if (userinfo !== undefined && !USERINFO.test(withoutEscapes(userinfo))) return undefined

  const [beforeHeaders, headers] = cutBefore('?', location)
  const [hostport, parameters] = cutBefore(';', beforeHeaders)
  if (parameters !== '' && !parameters.slice(1).split(';').every(each => PARAMETER.test(withoutEscapes(each)))) return undefined
  if (headers !== '' && !headers.slice(1).split('&').every(each => HEADER.test(withoutEscapes(each)))) return undefined

  const [, host, digits] = HOSTPORT.exec(hostport) ?? []
  if (host === undefined || !isHost(host)) return undefined
  const port = digits === undefined ? undefined : Number(digits)
  if (port !== undefined && port > 65_535) return undefined

  return {
    scheme: scheme?.toLowerCase() === 'sips' ? 'sips' : 'sip',
    user: userinfo?.split(':', 1)[0],
    host,
    port,
    parameters,
    headers,
    uri
  }
}

/**
 * What two addresses of one account have in common, as `user@host[:port]` (RFC 3261 section 19.1.4): the user with case,
 * the host without, an IPv6 address by its value (RFC 5954 section 4), an unneeded escape as its character. Escapes of
 * reserved characters stay, for `%3B` is not the same as `;`. No port is not the same as 5060.
 */
export function addressKey ({ user, host, port }: SipAddress): string {
  const plainUser = user === undefined ? '' : `${user.replaceAll(ESCAPE, unescapeIfPlain)}@`
  const plainHost = host.startsWith('[') ? new URL(`http://${host}`).hostname : host.toLowerCase().replace(/\.$/, '')
  return plainUser + plainHost + (port === undefined ? '' : `:${port}`)
}

function unescapeIfPlain (escape: string): string {
  const character = String.fromCharCode(Number.parseInt(escape.slice(1), 16))
  return PLAIN.test(character) ? character : escape.toUpperCase()
}

/** With a letter in place of every escape, so that the grammar's classes need not know them; a stray `%` stays and is refused. */
function withoutEscapes (text: string): string {
  return text.replaceAll(ESCAPE, 'a')
}

/** An `@` can stand unescaped at one place only, and before it every other delimiter is part of the user. */
function partAtSign (text: string): [userinfo: string | undefined, location: string] {
  const at = text.indexOf('@')
  return at === -1 ? [undefined, text] : [text.slice(0, at), text.slice(at + 1)]
}

function cutBefore (delimiter: string, text: string): [before: string, from: string] {
  const at = text.indexOf(delimiter)
  return at === -1 ? [text, ''] : [text.slice(0, at), text.slice(at)]
}

function isHost (host: string): boolean {
  if (host.startsWith('[')) return URL.canParse(`http://${host}`)
  return isIPv4(host) || isHostname(host)
}

/** `*( domainlabel "." ) toplabel [ "." ]`: the last label begins with a letter, which tells names from broken IPv4 addresses. */
function isHostname (host: string): boolean {
  const labels = host.replace(/\.$/, '').split('.')
  return /^[A-Za-z]/.test(labels.at(-1) ?? '') &&
    labels.every(label => label !== '' && !label.startsWith('-') && !label.endsWith('-'))
}

import type { AudioType } from './media-type.js'
import { addressKey, parseSipAddress } from './sip-address.js'

const EXTENSIONS: Readonly<Record<AudioType, string>> = { 'audio/wav': '.wav', 'audio/opus': '.opus' }

/** With the time and the extension far below 255 bytes, the longest name that common file systems take. */
const MAX_CALLER_CHARS = 100

/** Names that Windows gives to devices, whatever follows their first dot. */
const DEVICE = /^(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)/i

/**
 * The name under which a browser saves a voicemail: caller, time in UTC, extension, as in
 * `alice@sip.example.org 2025-10-09 12.59.32.wav`. It is a plain file name on every system, whatever `sipFrom` is, and
 * still has to be written into a header (RFC 6266).
 */
export function downloadName (sipFrom: string, createdAtMs: number, type: AudioType): string {
  const time = new Date(createdAtMs).toISOString().slice(0, 19).replace('T', ' ').replaceAll(':', '.')
  return `${callerName(sipFrom)} ${time}${EXTENSIONS[type]}`
}

function callerName (sipFrom: string): string {
  const address = parseSipAddress(sipFrom)
  const caller = address === undefined ? sipFrom : addressKey({ ...address, port: undefined })
  const name = caller
    .replaceAll(/(?:%[0-9A-Fa-f]{2}|[^A-Za-z0-9@._+-])+/g, '_')
    .replace(/^[._-]+/, '') // not hidden, and no option of a command
    .slice(0, MAX_CALLER_CHARS)
  if (name === '') return 'unknown'
  return DEVICE.test(name) ? `_${name}` : name
}

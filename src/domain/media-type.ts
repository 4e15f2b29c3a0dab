/** The audio that a slot can be opened for. Ogg Opus is `audio/opus` here, as the customer's contract says. */
export const AUDIO_TYPES = ['audio/opus', 'audio/wav'] as const

export type AudioType = typeof AUDIO_TYPES[number]

const ALIASES: ReadonlyMap<string, AudioType | 'any'> = new Map<string, AudioType | 'any'>([
  ['audio/wav', 'audio/wav'],
  ['audio/x-wav', 'audio/wav'],
  ['audio/wave', 'audio/wav'],
  ['audio/vnd.wave', 'audio/wav'],
  ['audio/opus', 'audio/opus'],
  ['audio/ogg', 'audio/opus'],
  ['application/octet-stream', 'any']
])

/**
 * Whether a declared `Content-Type` (RFC 9110 section 8.3) may carry the audio of a slot: the slot's own type, an alias of
 * it, none, or `application/octet-stream`; in any case, parameters ignored but for `codecs` of `audio/ogg`, which must be opus.
 */
export function declaresAudioOf (slotType: AudioType, declared: string | undefined): boolean {
  const [essence = '', ...parameters] = (declared ?? '').toLowerCase().split(';').map(part => part.trim())
  if (essence === '') return true
  const named = ALIASES.get(essence)
  if (named !== 'any' && named !== slotType) return false
  if (essence !== 'audio/ogg') return true
  const codecs = parameters.find(parameter => parameter.startsWith('codecs='))
  return codecs === undefined || codecs.slice('codecs='.length).replaceAll('"', '').trim() === 'opus'
}

/** What a browser is told that the audio is: it refuses `audio/opus`, and plays the same bytes as Ogg (RFC 7845 section 9). */
export function servedType (type: AudioType): string {
  return type === 'audio/opus' ? 'audio/ogg; codecs=opus' : type
}

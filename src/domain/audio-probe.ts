import type { AudioType } from './media-type.js'
import { ChunkFeeder, type Reading } from './byte-reading.js'
import { readOggOpus } from './ogg-opus-probe.js'
import { readWav } from './wav-probe.js'

/** Tells, while the bytes of an upload stream by, whether they are the audio that they should be, and how long it sounds. */
export interface AudioProbe {
  /**
   * Looks at the next bytes, in chunks of any size; none is kept. Throws `AppError` `unsupported_audio`, with `expected` and
   * `found`, at the first byte that shows that it is not the audio, and again whenever it is called after that.
   */
  feed (chunk: Uint8Array): void
  /** No more bytes. Throws the same where what came is not enough (nothing, half a header, no sound). The duration is that of
   * the sound which is really there, rounded to whole milliseconds. */
  end (): { durationMs: number }
}

const PARSERS: Record<AudioType, () => Reading<number>> = { 'audio/wav': readWav, 'audio/opus': readOggOpus }

export function createAudioProbe (type: AudioType): AudioProbe {
  const feeder = new ChunkFeeder(PARSERS[type]())
  return {
    feed: chunk => feeder.feed(chunk),
    end: () => ({ durationMs: Math.round(feeder.end()) })
  }
}

/** The longest packet that Opus allows, 120 ms at 48 kHz (RFC 6716 section 3.2.5). */
const LONGEST_PACKET = 5760

/**
 * How many samples (of 48 kHz) a packet holds, by its first two bytes (RFC 6716 section 3.1 and 3.2.5); 0 for one that is not
 * valid. A packet of several streams (RFC 7845 section 5.1.1) has the length of its first.
 */
export function packetSamples (length: number, first: number, second: number): number {
  if (length === 0) return 0
  const config = first >> 3
  const frame = config < 12
    ? [480, 960, 1920, 2880][config % 4] ?? 0
    : config < 16 ? 480 << config % 2 : 120 << config % 4
  const code = first & 3
  if (code < 3) return code === 0 ? frame : 2 * frame
  const samples = length < 2 ? 0 : frame * (second & 63)
  return samples <= LONGEST_PACKET ? samples : 0
}

/** One stream of an Ogg Opus file, and how much of it there is so far. */
export class OpusStream {
  awaitsTags = true
  tagsBegun = false
  /** Whether a valid packet of sound was there. */
  heard = false
  #counted = 0
  /** The granule position that the sound has reached. */
  #position = 0
  /** Samples of the packets that end on this page, and of the one that goes on on the next. */
  #onPage = 0
  #unfinished = 0

  constructor (readonly serial: number, readonly preSkip: number) {}

  /** The samples to be played: the first `preSkip` are for the decoder to settle (RFC 7845 section 4.2). */
  get samples (): number {
    return Math.max(0, this.#counted - this.preSkip)
  }

  /** A page begins, perhaps with the rest of an unfinished packet, which perhaps ends here. A packet not continued is lost. */
  beginPage (isContinued: boolean, continuedEnds: boolean): void {
    this.#onPage = 0
    if (isContinued && !continuedEnds) return
    if (isContinued) this.addPacket(this.#unfinished, true)
    this.#unfinished = 0
  }

  addPacket (samples: number, ends: boolean): void {
    if (!ends) {
      this.#unfinished = samples
      return
    }
    this.#onPage += samples
    if (samples > 0) this.heard = true
  }

  /**
   * A page ends. Its granule position may say that there is less sound than its packets hold (the end of the last page is
   * trimmed, RFC 7845 section 4.4), never that there is more: a gap has no sound, what went before a stream that begins
   * elsewhere than at 0 is not there (section 4.3), and a position that lies has no sound either. One that does not move on,
   * or would end within the pre-skip, says nothing, and the packets count.
   */
  endPage (granule: number, isLast: boolean): void {
    const held = this.#onPage
    if (held === 0) return
    const declared = granule - this.#position
    const speaks = granule > 0 && granule >= this.preSkip && (declared > 0 || (declared === 0 && isLast))
    this.#counted += speaks ? Math.min(declared, held) : held
    this.#position = speaks ? granule : this.#position + held
  }
}

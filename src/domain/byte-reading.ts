import { AppError } from '../errors.js'

/** What a parser asks for: that so many bytes pass by (`Infinity`: all that are left). */
export interface Want {
  bytes: number
  /** Sees the bytes in pieces as they pass and must not keep them. A number returned says: enough, I took so many of these. */
  look?: (piece: Uint8Array) => number | undefined
}

/**
 * A parser that is written straight on, as if it had the whole file, and stops wherever it wants bytes. It is told how many
 * passed: fewer than it wanted only at the end of the file, after which nothing more comes and it has to return.
 */
export type Reading<T> = Generator<Want, T, number>

/** Drives a parser with chunks of any size. Holds no byte itself: the state is the parser's few variables. */
export class ChunkFeeder<T> {
  readonly #parser: Reading<T>
  #want: Want = { bytes: 0 }
  #passed = 0
  #outcome: { result: T } | { refusal: unknown } | undefined

  constructor (parser: Reading<T>) {
    this.#parser = parser
    this.#resume()
  }

  /** Throws what the parser throws, and throws it again when it is asked again. */
  feed (chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length && this.#outcome === undefined;) {
      const wanted = Math.min(this.#want.bytes - this.#passed, chunk.length - at)
      const enough = this.#want.look?.(chunk.subarray(at, at + wanted))
      at += enough ?? wanted
      this.#passed += enough ?? wanted
      if (enough !== undefined || this.#passed === this.#want.bytes) this.#resume()
    }
    if (this.#outcome !== undefined && 'refusal' in this.#outcome) throw this.#outcome.refusal
  }

  /** No more bytes: the parser's result, or what it throws. */
  end (): T {
    while (this.#outcome === undefined) this.#resume()
    if ('refusal' in this.#outcome) throw this.#outcome.refusal
    return this.#outcome.result
  }

  #resume (): void {
    const passed = this.#passed
    this.#passed = 0
    try {
      const step = this.#parser.next(passed)
      if (step.done === true) this.#outcome = { result: step.value }
      else this.#want = step.value
    } catch (refusal) {
      this.#outcome = { refusal }
    }
  }
}

export function refusal (sentence: string, expected: string, found: string | number): AppError {
  return new AppError('unsupported_audio', sentence, { expected, found })
}

/** Passes over `bytes`; returns how many there were. */
export function * skip (bytes: number, look?: (piece: Uint8Array) => undefined): Reading<number> {
  return bytes === 0 ? 0 : yield look === undefined ? { bytes } : { bytes, look }
}

/** A copy of the next `bytes`, shorter where the file ends. */
export function * take (bytes: number): Reading<Buffer> {
  const taken = Buffer.allocUnsafe(bytes)
  let filled = 0
  yield * skip(bytes, piece => {
    taken.set(piece, filled)
    filled += piece.length
  })
  return taken.subarray(0, filled)
}

/** A copy of the next `bytes`; where the file ends before, it is refused with the sentence `cut`. */
export function * need (bytes: number, cut: string): Reading<Buffer> {
  const taken = yield * take(bytes)
  if (taken.length < bytes) throw refusal(cut, 'more bytes', 'the end')
  return taken
}

/** The one of `words`, all of one length, that comes next; refused with `sentence` at the first byte that is of none of them. */
export function * expectWord (words: readonly string[], sentence: string, cut: string): Reading<string> {
  const [{ length } = ''] = words
  let seen = ''
  const fits = (): boolean => words.some(word => word.startsWith(seen))
  yield {
    bytes: length,
    look: piece => {
      for (let at = 0; at < piece.length; at++) {
        seen += String.fromCharCode(piece[at] ?? 0)
        if (!fits()) return at + 1
      }
      return undefined
    }
  }
  if (!fits()) throw refusal(sentence, words.map(shown).join(' or '), shown(seen))
  if (seen.length < length) throw refusal(cut, 'more bytes', 'the end')
  return seen
}

/** Foreign bytes, one a character, in a form that is safe in an answer and in a log. */
function shown (bytes: string): string {
  return /^[\x20-\x7e]*$/.test(bytes) ? `"${bytes}"` : `0x${Buffer.from(bytes, 'latin1').toString('hex')}`
}

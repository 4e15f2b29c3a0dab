import { AppError } from '../errors.js'
import { expectWord, need, refusal, skip, type Reading } from './byte-reading.js'
import { expectCapture, findCapture, OggCrc, packetsOf, readPage, type OggPage } from './ogg-page.js'
import { OpusStream, packetSamples } from './opus-stream.js'

const CUT = 'The Ogg file ends before its first packet of Opus sound.'
const NO_HEAD = 'This is no Ogg Opus file: its first packet is not a valid OpusHead.'
const NO_TAGS = 'This is no Ogg Opus file: its second packet is not OpusTags.'

/**
 * Reads an Ogg Opus file (RFC 3533, RFC 7845) and returns the milliseconds of its sound, chained streams added up.
 *
 * Up to the first packet of sound everything has to be right, the checksums of the header pages too: no player would open the
 * file otherwise. After it nothing is refused any more, because a refusal loses a message for good and a player plays on: where
 * no page begins, the next one is searched for (RFC 3533 section 3); a chained stream with bad headers is passed over, and so
 * is one multiplexed with the first; the checksums of sound are not looked at, so that its bytes can be jumped over. Of a page
 * that is cut off nothing counts, since a decoder is given whole pages.
 */
export function * readOggOpus (): Reading<number> {
  let stream: OpusStream | undefined
  let samples = 0
  let heard = false
  for (;;) {
    try {
      if (!heard) yield * expectCapture(CUT)
      else if (!(yield * findCapture())) break
      const page: OggPage = yield * readPage(stream === undefined && !heard, CUT)
      // Streams that begin together are multiplexed, one that begins after the other's headers is chained (RFC 3533 section 4).
      if (page.isFirstOfStream && stream?.awaitsTags !== true) {
        samples += stream?.samples ?? 0
        stream = undefined
        stream = yield * readHead(page)
      } else if (page.serial !== stream?.serial) {
        yield * skip(page.size)
      } else if (stream.awaitsTags) {
        yield * readTags(page, stream)
      } else {
        yield * readSound(page, stream)
        heard ||= stream.heard
      }
    } catch (error) {
      if (!heard || !(error instanceof AppError)) throw error
      samples += stream?.samples ?? 0
      stream = undefined
    }
  }
  return (samples + (stream?.samples ?? 0)) / 48
}

/** The identification header, alone on the first page of a stream (RFC 7845 sections 3 and 5.1); refused at its first wrong byte. */
function * readHead (page: OggPage): Reading<OpusStream> {
  const packets = packetsOf(page)
  if (packets.length !== 1 || packets[0]?.ends !== true || page.size < 19) {
    throw refusal(NO_HEAD, 'a page with one packet of at least 19 bytes', `a page with ${packets.length}, ${page.size} bytes in all`)
  }
  const crc = new OggCrc(page)
  yield * expectPrefix('OpusHead', NO_HEAD, crc)
  const next = function * (): Reading<number> {
    const byte = yield * need(1, CUT)
    crc.add(byte)
    return byte.readUInt8()
  }
  const expectThat = (fits: boolean, expected: string, found: number): void => {
    if (!fits) throw refusal(NO_HEAD, expected, found)
  }

  const version = yield * next()
  expectThat(version < 16, 'a version below 16', version)
  const channels = yield * next()
  expectThat(channels > 0, 'at least 1 channel', channels)
  const preSkip = (yield * next()) + 256 * (yield * next())
  // Input sample rate and output gain: for players.
  for (let unused = 0; unused < 6; unused++) yield * next()
  const family = yield * next()
  const most = family === 0 ? 2 : family === 1 ? 8 : 255
  expectThat(channels <= most, `at most ${most} channels in mapping family ${family}`, channels)
  let read = 19
  if (family !== 0) {
    expectThat(page.size >= 21 + channels, `a packet of at least ${21 + channels} bytes`, page.size)
    const streams = yield * next()
    expectThat(streams > 0, 'at least 1 stream', streams)
    const coupled = yield * next()
    expectThat(coupled <= streams && streams + coupled <= 255, `at most ${Math.min(streams, 255 - streams)} coupled streams`, coupled)
    for (let channel = 0; channel < channels; channel++) {
      const decoded = yield * next()
      expectThat(decoded < streams + coupled || decoded === 255, `a decoded channel below ${streams + coupled}, or 255`, decoded)
    }
    read = 21 + channels
  }
  yield * endHeaderPage(page, page.size - read, crc)
  return new OpusStream(page.serial, preSkip)
}

/** A page of the comment header (RFC 7845 section 5.2): the packet spans as many as it likes, and the sound begins on a new one. */
function * readTags (page: OggPage, stream: OpusStream): Reading<void> {
  const crc = new OggCrc(page)
  const packets = packetsOf(page)
  const [first] = packets
  let rest = page.size
  if (first !== undefined && !stream.tagsBegun) {
    if (first.length < 8) throw refusal(NO_TAGS, 'a packet of at least 8 bytes', first.length)
    yield * expectPrefix('OpusTags', NO_TAGS, crc)
    stream.tagsBegun = true
    rest -= 8
  }
  yield * endHeaderPage(page, rest, crc)
  stream.awaitsTags = !packets.some(packet => packet.ends)
}

function * expectPrefix (word: string, sentence: string, crc: OggCrc): Reading<void> {
  crc.add(Buffer.from(yield * expectWord([word], sentence, CUT), 'latin1'))
}

/** The last `bytes` of a header page; without the right checksum players take the page as not there. */
function * endHeaderPage (page: OggPage, bytes: number, crc: OggCrc): Reading<void> {
  yield * skip(bytes, piece => { crc.add(piece) })
  if (crc.value !== page.checksum) {
    throw refusal('A header page of the Ogg file does not match its checksum.', hex(page.checksum), hex(crc.value))
  }
}

const hex = (checksum: number): string => `0x${checksum.toString(16).padStart(8, '0')}`

/** A page of sound: jumps over it but for the first two bytes of each packet, which tell its length (RFC 6716 section 3.1). */
function * readSound (page: OggPage, stream: OpusStream): Reading<void> {
  const packets = packetsOf(page)
  // An empty packet is no sound, and has no byte to be read.
  const begun = packets.filter(packet => packet.begins && packet.length > 0)
  const starts = new Uint8Array(begun.length * 2)
  let passed = 0
  let next = 0
  const there = yield * skip(page.size, piece => {
    for (; next < starts.length; next++) {
      const offset = (begun[next >> 1]?.at ?? Infinity) + next % 2 - passed
      if (offset >= piece.length) break
      starts[next] = piece[offset] ?? 0
    }
    passed += piece.length
  })
  if (there < page.size) return

  stream.beginPage(page.isContinued, packets[0]?.ends === true)
  begun.forEach(({ length, ends }, index) => {
    stream.addPacket(packetSamples(length, starts[2 * index] ?? 0, starts[2 * index + 1] ?? 0), ends)
  })
  stream.endPage(page.granule, page.isLastOfStream)
}

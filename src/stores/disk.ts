import fs from 'node:fs'
import type { Readable } from 'node:stream'
import { promisify } from 'node:util'

const writev = promisify(fs.writev)
const read = promisify(fs.read)

/**
 * What is asked of the disk for each file of audio, by file descriptors. What may have to wait for the disk is done in libuv's pool of
 * threads; what never does (on a disk of this machine) is done at once, because handing it to a thread costs several times as much.
 */
export const disk = {
  /** Returns a file descriptor. */
  open: promisify<string, string | number, number | undefined, number>(fs.open),
  /** Writes all of the bytes, which come in pieces, where the file was left. */
  write: async (fd: number, pieces: readonly Uint8Array[]): Promise<void> => {
    for (let left = pieces; left.length > 0;) left = without(left, (await writev(fd, left)).bytesWritten)
  },
  /** Reads from `first` on; returns how many bytes there were, fewer than wanted only at the end of the file. */
  read: async (fd: number, into: Uint8Array, first: number): Promise<number> => {
    let done = 0
    for (let bytesRead = -1; done < into.byteLength && bytesRead !== 0; done += bytesRead) {
      ({ bytesRead } = await read(fd, into, done, into.byteLength - done, first + done))
    }
    return done
  },
  datasync: promisify(fs.fdatasync),
  sync: promisify(fs.fsync),
  link: promisify(fs.link),
  rename: promisify(fs.rename),
  unlink: promisify(fs.unlink),
  size: (fd: number): number => fs.fstatSync(fd).size,
  close: (fd: number): void => { fs.closeSync(fd) }
}

/** What is left of pieces when so many bytes have been taken from their beginning. */
function without (pieces: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let taken = 0
  return pieces.flatMap(piece => {
    const here = Math.min(bytes - taken, piece.byteLength)
    taken += here
    return here === piece.byteLength ? [] : [piece.subarray(here)]
  })
}

/** A stream of the bytes from `first` to `last`, both included, in pieces of at most `pieceBytes`. It closes the file when it is over, whichever way. */
export function streamFile (fd: number, first: number, last: number, pieceBytes: number): Readable {
  const calls = {
    open: fs.open,
    read: (fd: number, buffer: Buffer, offset: number, length: number, position: number, done: (error: Error | null, bytesRead?: number, buffer?: Buffer) => void) => {
      disk.read(fd, buffer.subarray(offset, offset + length), position).then(bytesRead => { done(null, bytesRead, buffer) }, done)
    },
    close: (fd: number, done: (error?: Error | null) => void) => {
      disk.close(fd)
      done()
    }
  }
  return fs.createReadStream('', { fd, start: first, end: last, highWaterMark: pieceBytes, fs: calls })
}

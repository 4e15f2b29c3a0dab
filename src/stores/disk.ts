import fs from 'node:fs'
import { Readable } from 'node:stream'
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
  /** For reading, and never through a link: a look at folders that the system has in mind, as the database's own files. */
  openNow: (path: string): number => fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW),
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
  /** As `read`, at once: for as little as takes less time to copy than to hand to a thread. */
  readNow: (fd: number, into: Uint8Array, first: number): number => {
    let done = 0
    for (let bytesRead = -1; done < into.byteLength && bytesRead !== 0; done += bytesRead) {
      bytesRead = fs.readSync(fd, into, done, into.byteLength - done, first + done)
    }
    return done
  },
  datasync: promisify(fs.fdatasync),
  sync: promisify(fs.fsync),
  link: promisify(fs.link),
  rename: promisify(fs.rename),
  unlink: promisify(fs.unlink),
  size: (fd: number): number => fs.fstatSync(fd).size,
  /** Bytes that can still be written where the folder is. */
  freeBytes: (folder: string): number => {
    const { bavail, bsize } = fs.statfsSync(folder)
    return bavail * bsize
  },
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

/**
 * A stream of the bytes from `first` to `last`, both included, through one buffer: a piece is good until the next one is asked for. So it is for `pipe`
 * alone, into a stream that takes less than a buffer ahead, and asks on when it has written all. It closes the file when it is over, whichever way.
 */
export function streamFile (fd: number, first: number, last: number, buffer: Buffer): Readable {
  let position = first
  let reading = Promise.resolve()
  return new Readable({
    // Nothing is read ahead.
    highWaterMark: 0,
    read () {
      const piece = buffer.subarray(0, Math.min(buffer.length, last + 1 - position))
      reading = disk.read(fd, piece, position).then(bytesRead => {
        if (this.destroyed) return
        position += bytesRead
        if (bytesRead > 0) this.push(piece.subarray(0, bytesRead))
        if (bytesRead < piece.length || position > last) this.push(null)
      }).catch((error: unknown) => { this.destroy(error instanceof Error ? error : new Error(String(error))) })
    },
    destroy (error, done) {
      // A read under way would go to whatever file gets this number next.
      void reading.then(() => {
        disk.close(fd)
        done(error)
      })
    }
  })
}

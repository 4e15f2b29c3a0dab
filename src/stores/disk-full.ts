import { AppError } from '../errors.js'

/** The last is SQLite's shared memory, which finds no room. */
const FULL = new Set(['ENOSPC', 'EDQUOT', 'SQLITE_FULL', 'SQLITE_IOERR_SHMSIZE'])

/** Whether the file system or SQLite says that the disk is full. */
export function isFullDisk (error: unknown): boolean {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && FULL.has(error.code)
}

/** What a full disk says in words that a client may be told; anything else as it is. */
export function explainFullDisk (error: unknown): unknown {
  return isFullDisk(error)
    ? new AppError('insufficient_storage', 'The disk is full.', { headers: { 'retry-after': '60' }, cause: error })
    : error
}

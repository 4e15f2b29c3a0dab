import { AppError } from '../errors.js'

const FULL = new Set(['ENOSPC', 'EDQUOT', 'SQLITE_FULL'])

/** What a full disk says, from the file system or from SQLite, in words that a client may be told; anything else as it is. */
export function explainFullDisk (error: unknown): unknown {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && FULL.has(error.code)
    ? new AppError('insufficient_storage', 'The disk is full.', { headers: { 'retry-after': '60' }, cause: error })
    : error
}

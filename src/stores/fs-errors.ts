/** Whether an error of the file system has one of these codes. */
export function hasCode (error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && codes.includes(error.code)
}

/** For `catch`: undefined where the file is not there; anything else is thrown on. */
export function undefinedIfGone (error: unknown): undefined {
  if (!hasCode(error, 'ENOENT')) throw error
}

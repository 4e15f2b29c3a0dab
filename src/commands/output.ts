/** A command that cannot do what it was asked; the message is one line for people. */
export class CommandError extends Error {
  override readonly name = 'CommandError'
}

/** A command line that cannot be understood. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** Where a command speaks. */
export interface Output {
  /** The result: standard output. */
  print: (line: string) => void
  /** What a person at the terminal wants to know beside it: standard error. */
  tell: (line: string) => void
  /** Where standard error is a terminal: shows a line in place of the one before, until the last. */
  progress?: ((line: string, isLast: boolean) => void) | undefined
}

/** Rows as a table with a header line; columns are as wide as they need. */
export function table (columns: readonly string[], rows: ReadonlyArray<ReadonlyArray<string | number | null>>): string {
  // What somebody typed into a name is not for the terminal to obey.
  const cells = [columns, ...rows].map(row => row.map(cell => String(cell ?? '-').replaceAll(/\p{Cc}/gu, ' ')))
  const widths = columns.map((_, column) => Math.max(...cells.map(row => row[column]?.length ?? 0)))
  return cells.map(row => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ').trimEnd()).join('\n')
}

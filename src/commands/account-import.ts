import { parse } from 'csv-parse/sync'
import type { Accounts } from '../domain/accounts.js'
import { AppError } from '../errors.js'
import { CommandError } from './output.js'

export interface ImportReport { added: number, known: number, refused: Array<{ line: number, reason: string }> }

const COLUMNS = ['sip_uri', 'email', 'display_name']

/**
 * Adds the accounts of a CSV text (RFC 4180). With a header line that names its columns, in any order; without one they are
 * sip_uri, email, display_name. A line that is refused keeps none of the others back.
 */
export async function importAccounts (accounts: Accounts, csv: string): Promise<ImportReport> {
  const [first, ...rest] = readRecords(csv)
  const report: ImportReport = { added: 0, known: 0, refused: [] }
  if (first === undefined) return report
  const hasHeader = first.record.includes('sip_uri')
  const columns = hasHeader ? first.record : COLUMNS
  for (const { line, record } of hasHeader ? rest : [first, ...rest]) {
    const field = (name: string): string | undefined => record[columns.indexOf(name)] || undefined
    try {
      await accounts.add({ sipUri: field('sip_uri') ?? '', email: field('email'), displayName: field('display_name') })
      report.added += 1
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      if (error.code === 'account_exists') report.known += 1
      else report.refused.push({ line, reason: error.message })
    }
  }
  return report
}

function readRecords (csv: string): Array<{ line: number, record: string[] }> {
  try {
    const lines: number[] = []
    const records: string[][] = parse(csv, {
      bom: true,
      trim: true,
      skip_empty_lines: true,
      relax_column_count: true,
      onRecord: (record: string[], { lines: line }) => {
        lines.push(line)
        return record
      }
    })
    return records.map((record, at) => ({ record, line: lines[at] ?? 0 }))
  } catch (error) {
    throw new CommandError(`This is no CSV: ${error instanceof Error ? error.message : 'unreadable'}`)
  }
}

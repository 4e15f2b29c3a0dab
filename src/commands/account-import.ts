import { parse } from 'csv-parse/sync'
import type { Accounts } from '../domain/accounts.js'
import { AppError } from '../errors.js'
import { NewAccount } from '../schemas/account.js'
import { CommandError } from './output.js'
import { requireShape } from './shape.js'

export interface ImportReport { added: number, known: number, refused: Array<{ line: number, reason: string }> }

const COLUMNS = ['sip_uri', 'email', 'display_name']
/** As many are written together: one at a time, each would wait for the disk by itself. */
const BATCH = 500

/**
 * Adds the accounts of a CSV text (RFC 4180). With a header line that names its columns, in any order; without one they are
 * sip_uri, email, display_name. A line that is refused keeps none of the others back; a record of several lines goes by its first.
 */
export async function importAccounts (accounts: Accounts, csv: string): Promise<ImportReport> {
  const [first, ...rest] = readRecords(csv)
  const report: ImportReport = { added: 0, known: 0, refused: [] }
  if (first === undefined) return report
  const hasHeader = first.record.includes('sip_uri')
  const columns = hasHeader ? first.record : COLUMNS
  const check = requireShape(NewAccount)
  const add = async (record: string[]): Promise<void> => {
    const field = (name: string): string | undefined => record[columns.indexOf(name)] || undefined
    const [sipUri = '', email, displayName] = COLUMNS.map(field)
    check({ sip_uri: sipUri, ...email !== undefined && { email }, ...displayName !== undefined && { display_name: displayName } })
    await accounts.add({ sipUri, email, displayName })
  }
  const records = hasHeader ? rest : [first, ...rest]
  for (let at = 0; at < records.length; at += BATCH) {
    const batch = records.slice(at, at + BATCH)
    const outcomes = await Promise.allSettled(batch.map(async ({ record }) => { await add(record) }))
    for (const [index, outcome] of outcomes.entries()) {
      if (outcome.status === 'fulfilled') report.added += 1
      else if (!(outcome.reason instanceof AppError)) throw outcome.reason
      else if (outcome.reason.code === 'account_exists') report.known += 1
      else report.refused.push({ line: batch[index]?.line ?? 0, reason: outcome.reason.message })
    }
  }
  return report
}

function readRecords (csv: string): Array<{ line: number, record: string[] }> {
  try {
    const lines: number[] = []
    // The parser takes the first line's ending for every line's, and counts a CR LF in quotes as two.
    const records: string[][] = parse(csv.replaceAll(/\r\n?/g, '\n'), {
      bom: true,
      trim: true,
      skip_empty_lines: true,
      skip_records_with_empty_values: true,
      relax_column_count: true,
      onRecord: (record: string[], { lines: line }) => {
        lines.push(line - (record.join('').split('\n').length - 1))
        return record
      }
    })
    return records.map((record, at) => ({ record, line: lines[at] ?? 0 }))
  } catch (error) {
    throw new CommandError(`This is no CSV: ${error instanceof Error ? error.message : 'unreadable'}`)
  }
}

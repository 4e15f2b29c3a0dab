import { readdirSync, readFileSync, writeFileSync } from 'node:fs'

/** What a process and all its descendants have used. */
export interface TreeUse {
  /** User and system time, of threads and of children that have ended too. */
  cpuUs: number
  residentBytes: number
  /** The sum of the most that each process held since its start, or since `forgetPeak`. */
  peakBytes: number
}

/** The unit of times in /proc/PID/stat: USER_HZ, which is 100 on every machine that Node runs on. */
const TICK_US = 10_000

/** Reads /proc (Linux). Throws where the process has ended. */
export function readTree (pid: number): TreeUse {
  const use: TreeUse = { cpuUs: 0, residentBytes: 0, peakBytes: 0 }
  for (const { pid: each, ticks } of treeOf(pid)) {
    use.cpuUs += ticks * TICK_US
    use.residentBytes += bytesOf(each, 'VmRSS')
    use.peakBytes += bytesOf(each, 'VmHWM')
  }
  return use
}

/** Microseconds that the first thread of a process has used. */
export function readMainThread (pid: number): number {
  return (readStat(`${pid}/task/${pid}`)?.ticks ?? 0) * TICK_US
}

/** From here on the peak is counted anew. A kernel that cannot do it goes on with the old one. */
export function forgetPeak (pid: number): void {
  for (const { pid: each } of treeOf(pid)) {
    try {
      writeFileSync(`/proc/${each}/clear_refs`, '5')
    } catch {}
  }
}

function treeOf (pid: number): Stat[] {
  const childrenOf = new Map<number, Stat[]>()
  const tree: Stat[] = []
  for (const name of readdirSync('/proc')) {
    const stat = /^\d+$/.test(name) ? readStat(name) : undefined
    if (stat === undefined) continue
    if (stat.pid === pid) tree.push(stat)
    const siblings = childrenOf.get(stat.parent)
    if (siblings === undefined) childrenOf.set(stat.parent, [stat])
    else siblings.push(stat)
  }
  if (tree.length === 0) throw new Error(`process ${pid} has ended`)
  for (const { pid: each } of tree) tree.push(...childrenOf.get(each) ?? [])
  return tree
}

interface Stat { pid: number, parent: number, ticks: number }

/** Of a process or a thread below /proc; undefined for one that has ended since. */
function readStat (path: string): Stat | undefined {
  const text = readProc(path, 'stat')
  // The name of the program may hold blanks and brackets: fields are counted from the last bracket on, where field 3 begins.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ').map(Number)
  const [parent, user, system, childrenUser, childrenSystem] = [1, 11, 12, 13, 14].map(at => fields[at] ?? 0)
  if (text === '' || parent === undefined) return undefined
  return { pid: parseInt(text), parent, ticks: (user ?? 0) + (system ?? 0) + (childrenUser ?? 0) + (childrenSystem ?? 0) }
}

function bytesOf (pid: number, field: 'VmRSS' | 'VmHWM'): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readProc(pid, 'status'))?.[1] ?? 0) * 1024
}

function readProc (path: string | number, name: string): string {
  try {
    return readFileSync(`/proc/${path}/${name}`, 'latin1')
  } catch {
    return ''
  }
}

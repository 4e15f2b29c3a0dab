import type { ContestResult, Sample } from './contest.js'
import type { Figure } from './figure.js'
import type { Verdict } from './goals.js'
import { ratioOf, spreadOf, spreadOver, type Spread } from './statistics.js'

/** Everything in Markdown: each contest with absolute figures and ratios, then figures, then goals. */
export function report (contests: readonly ContestResult[], figures: readonly Figure[], verdicts: readonly Verdict[]): string {
  const measured = verdicts.filter(({ found }) => found !== undefined)
  return [
    ...contests.map(contestTables),
    ...figures.length === 0
      ? []
      : [section('Start and memory', table(
          ['', 'median', 'least', 'most'],
          figures.map(({ name, unit, values }) => {
            const { median, least, most } = spreadOf(values)
            return [name, `${digits(median)} ${unit}`, digits(least), digits(most)]
          })
        ))],
    ...measured.length === 0
      ? []
      : [section('Goals', table(
          ['what', 'goal', 'measured', 'floor', 'reached'],
          measured.map(({ goal, found, floor, isReached }) => {
            const unit = 'unit' in goal ? ` ${goal.unit}` : ''
            return [goal.what, `${goal.atLeast ? 'at least' : 'at most'} ${goal.bound}${unit}`, withEnds(found), withEnds(floor), isReached ? 'yes' : '**no**']
          })
        ))]
  ].join('\n')
}

function contestTables (contest: ContestResult): string {
  const names = [...contest.samples.keys()]
  const others = names.filter(name => !contest.subjects.includes(name))
  const absolute = table(
    ['', 'per second', 'CPU µs each', 'core busy', 'peak MB'],
    names.map(name => {
      const samples = contest.samples.get(name) ?? []
      const peak = spreadOver(samples, 'peakMegabytes')
      return [name, withEnds(spreadOver(samples, 'opsPerSecond')), withEnds(spreadOver(samples, 'cpuUsPerOp')), busy(samples), digits(peak.most)]
    })
  )
  const ratios = table(
    ['relative to', ...contest.subjects.flatMap(name => [name, 'its CPU'])],
    others.map(other => [other, ...contest.subjects.flatMap(name => [ratioOf(contest, 'opsPerSecond', name, other), ratioOf(contest, 'cpuUsPerOp', name, other)].map(withEnds))])
  )
  return section(contest.name, `${absolute}\n${ratios}`)
}

/** Where it is far from the whole core, the disk or the client was the limit. */
function busy (samples: readonly Sample[]): string {
  const { median } = spreadOf(samples.map(({ opsPerSecond, cpuUsPerOp }) => opsPerSecond * cpuUsPerOp / 1e6))
  return `${Math.round(median * 100)} %`
}

function section (title: string, body: string): string {
  return `## ${title.slice(0, 1).toUpperCase()}${title.slice(1)}\n\n${body}`
}

export function table (head: readonly string[], rows: readonly string[][]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |\n`
  return line(head) + line(head.map((_cell, at) => at === 0 ? '---' : '---:')) + rows.map(line).join('')
}

function withEnds (spread: Spread | undefined): string {
  return spread === undefined ? '' : `${digits(spread.median)} (${digits(spread.least)}–${digits(spread.most)})`
}

/** More digits than these a second measurement would not agree on. */
function digits (value: number): string {
  if (value >= 100) return Math.round(value).toLocaleString('en')
  return value.toFixed(value >= 10 ? 1 : value >= 0.1 ? 2 : 3)
}

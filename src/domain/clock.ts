/** The time in milliseconds since 1970 in UTC. Passed to whatever needs it, so that tests can stand where they like. */
export type Clock = () => number

/** ISO 8601 in UTC to the second: `2025-10-09T12:59:32Z`. */
export function isoSeconds (ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`
}

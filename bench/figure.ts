/** What is no contest: one number of voicemaild's own, measured several times. */
export interface Figure { name: string, unit: 'ms' | 'MB', values: readonly number[] }

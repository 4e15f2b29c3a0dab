/** What is no contest: one number of voicemaild's own, measured several times. */
export interface Figure { name: string, unit: 'ms' | 'MB', values: readonly number[] }

/** A figure or several, by the names that `--only` looks at. */
export interface Inquiry { figures: readonly string[], measure: () => Promise<Figure[]> }

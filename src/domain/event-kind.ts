/** What the record of access tells of. */
export const EVENT_KINDS = ['listened', 'downloaded', 'deleted'] as const

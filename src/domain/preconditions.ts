import { parseHttpDate } from './http-date.js'

/** What a file is known by (RFC 9110 section 8.8). */
export interface Validators {
  /** Strong, with its quotes. */
  etag: string
  lastModifiedMs: number
}

/** The values of the conditional headers that a request has, each as it came. */
export interface ConditionHeaders {
  ifMatch?: string | undefined
  ifNoneMatch?: string | undefined
  ifModifiedSince?: string | undefined
  ifUnmodifiedSince?: string | undefined
  /** No reason to refuse: it is `rangeStillApplies` that asks for it. */
  ifRange?: string | undefined
}

/**
 * What a GET or HEAD with these conditions gets, in the order of RFC 9110 section 13.2.2: a condition on an entity tag
 * outranks the one on a date of the same sense, and a date that is none is as good as absent.
 */
export function evaluatePreconditions (conditions: ConditionHeaders, validators: Validators): 'proceed' | 'not_modified' | 'precondition_failed' {
  const { ifMatch, ifNoneMatch, ifModifiedSince, ifUnmodifiedSince } = conditions
  const { etag } = validators

  if (ifMatch !== undefined) {
    if (!lists(ifMatch, tag => !tag.weak && tag.opaque === etag)) return 'precondition_failed'
  } else if (modifiedSince(ifUnmodifiedSince, validators) === true) {
    return 'precondition_failed'
  }

  if (ifNoneMatch !== undefined) {
    if (lists(ifNoneMatch, tag => tag.opaque === etag)) return 'not_modified'
  } else if (modifiedSince(ifModifiedSince, validators) === false) {
    return 'not_modified'
  }
  return 'proceed'
}

/**
 * Whether the part that a client has belongs to this file, so that a range completes it (RFC 9110 section 13.1.5); without
 * the header it does. A weak tag never does. A date does where it is the very second: it is a strong validator here,
 * because stored audio never changes.
 */
export function rangeStillApplies (ifRange: string | undefined, { etag, lastModifiedMs }: Validators): boolean {
  if (ifRange === undefined || ifRange === etag) return true
  return parseHttpDate(ifRange, lastModifiedMs) === toSecond(lastModifiedMs)
}

/** Undefined where there is no date to compare with. */
function modifiedSince (date: string | undefined, { lastModifiedMs }: Validators): boolean | undefined {
  const sinceMs = date === undefined ? undefined : parseHttpDate(date, lastModifiedMs)
  return sinceMs === undefined ? undefined : toSecond(lastModifiedMs) > sinceMs
}

/** HTTP dates know no fractions: what was told as Last-Modified is the second. */
function toSecond (ms: number): number {
  return Math.floor(ms / 1000) * 1000
}

interface EntityTag { weak: boolean, opaque: string }

/** One element of a list of entity tags (RFC 9110 section 8.8.3), which may hold commas within its quotes, or be empty. */
const LISTED_TAG = /[ \t]*(?:(?<weak>W\/)?(?<opaque>"[\x21\x23-\x7e\x80-\xff]*")[ \t]*)?(?:,|$)/gy

/** Whether the list is `*`, which stands for any file that exists, or has such a tag before its first syntax error, if any. */
function lists (list: string, isSuch: (tag: EntityTag) => boolean): boolean {
  if (list.trim() === '*') return true
  for (const { groups } of list.matchAll(LISTED_TAG)) {
    const opaque = groups?.opaque
    if (opaque !== undefined && isSuch({ weak: groups?.weak !== undefined, opaque })) return true
  }
  return false
}

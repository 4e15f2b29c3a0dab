/** A header of the form `value; name=token; name="quoted"`, as Content-Type and Content-Disposition are. */
export interface HeaderValue {
  /** In lower case. */
  value: string
  /** By lower-case name; of two with the same name the first counts. */
  parameters: Map<string, string>
}

const PARAMETER = /;[ \t]*([^=;\s"]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;]*))/gsu

/** Reads such a header leniently (RFC 9110 section 5.6.6): what is no parameter is passed over. */
export function parseHeaderValue (header: string): HeaderValue {
  const end = header.indexOf(';')
  const parameters = new Map<string, string>()
  for (const [, name = '', quoted, token = ''] of header.slice(end === -1 ? header.length : end).matchAll(PARAMETER)) {
    const value = quoted?.replace(/\\(.)/gsu, '$1') ?? token.trim()
    if (!parameters.has(name.toLowerCase())) parameters.set(name.toLowerCase(), value)
  }
  return { value: header.slice(0, end === -1 ? header.length : end).trim().toLowerCase(), parameters }
}

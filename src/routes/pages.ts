import type { FastifyRequest } from 'fastify'

/** The `Link` (RFC 8288) to what comes after a full page; nothing where the page is the last. */
export function nextPage (
  { originalUrl, query }: FastifyRequest<{ Querystring: { limit: number } }>, page: ReadonlyArray<{ id: string | number }>
): { link?: string } {
  const last = page.at(-1)
  if (last === undefined || page.length < query.limit) return {}
  const url = new URL(originalUrl, 'http://any')
  url.searchParams.set('before', String(last.id))
  return { link: `<${url.pathname}${url.search}>; rel="next"` }
}

import type { FastifyRequest } from 'fastify'

type Paged = FastifyRequest<{ Querystring: { limit: number } }>

/** How many rows to ask a store for: one more than the page holds, which tells whether there is another page. */
export function rowsFor ({ query }: Paged): number {
  return query.limit + 1
}

/** The rows of this page, and the `Link` (RFC 8288) to the next one where there is more. */
export function cutPage<Row extends { id: string | number }> ({ originalUrl, query }: Paged, rows: Row[]): { page: Row[], link: { link?: string } } {
  const page = rows.slice(0, query.limit)
  const last = page.at(-1)
  if (last === undefined || rows.length === page.length) return { page, link: {} }
  const [path = '', search] = originalUrl.split('?', 2)
  const parameters = new URLSearchParams(search)
  parameters.set('before', String(last.id))
  return { page, link: { link: `<${path}?${parameters.toString()}>; rel="next"` } }
}

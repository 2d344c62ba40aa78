import { notFound } from '../kernel/errors.ts'
import type { Platform } from '../kernel/platform.ts'
import { clientDocument } from '../modules/connections/clients.ts'
import { page, script } from './serviceConnectionPage.ts'

const uuid = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
const callback = new RegExp(`^/oauth/callback/(${uuid})$`)
const clientDocumentPath = new RegExp(`^/oauth/clients/(${uuid})\\.json$`)
const scriptPath = '/oauth/callback.js'

/** What an authorization response may bring (RFC 6749 §4.1.2, RFC 9207); nothing else is passed on, `error_description` least of all. */
const answers = { code: 4096, state: 100, iss: 2000, error: 200 } as const

const text = (type: string, body: string, headers: Record<string, string> = {}): Response =>
  new Response(body, { headers: { 'Content-Type': `${type}; charset=utf-8`, ...headers } })

/**
 * Where authorization servers send browsers back to. A redirect brings no credential of this platform, and state alone says
 * nothing about who is at the browser: were the code taken here, anybody could have a stranger authorize in their place and
 * so connect the stranger's account to their own. So the answer is only handed over, in a fragment that no server sees, to
 * the page that holds the user's access token; `completeServiceConnection` takes it from the one session that asked.
 */
function handOver(platform: Platform, serviceId: string, search: URLSearchParams): Response {
  const given = Object.entries(answers).flatMap(([name, max]) => {
    const [value, ...more] = search.getAll(name)
    return value !== undefined && more.length === 0 && value.length <= max ? [[name, value]] : []
  })
  const fragment = new URLSearchParams([['serviceId', serviceId], ...given])
  const { frontendUrl } = platform.config
  if (frontendUrl)
    return new Response(null, {
      status: 303,
      headers: { Location: `${frontendUrl}/connect-service#${fragment.toString()}` },
    })
  return text('text/html', page)
}

/** The public pages of connecting an account; null for any other path. */
export function serviceConnectionPage(platform: Platform, { pathname, searchParams }: URL): Response | null {
  if (!pathname.startsWith('/oauth/')) return null
  const [, called] = callback.exec(pathname) ?? []
  if (called) return handOver(platform, called, searchParams)
  const [, described] = clientDocumentPath.exec(pathname) ?? []
  if (described)
    return text('application/json', JSON.stringify(clientDocument(platform, described)), {
      'Cache-Control': 'public, max-age=3600',
    })
  if (pathname === scriptPath) return text('text/javascript', script)
  throw notFound('page')
}

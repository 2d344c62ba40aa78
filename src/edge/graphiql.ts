import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { extname, join, sep } from 'node:path'

/**
 * For the page alone, in place of the general policy. Monaco styles its lines by inline `style`, hence the one relaxation; fonts, images and
 * workers are files of our own, so they need none.
 */
export const graphiqlContentSecurityPolicy =
  "default-src 'self'; script-src 'self'; object-src 'none'; style-src 'self' 'unsafe-inline'"

/** The path that the front-end is built for (`base` in its vite.config.ts). */
const base = '/graphiql/'

const contentTypes = new Map([
  ['.html', 'text/html; charset=utf-8'],
  ['.js', 'text/javascript; charset=utf-8'],
  ['.css', 'text/css; charset=utf-8'],
  ['.svg', 'image/svg+xml; charset=utf-8'],
  ['.png', 'image/png'],
  ['.ttf', 'font/ttf'],
  ['.woff', 'font/woff'],
  ['.woff2', 'font/woff2'],
])

type Body = Uint8Array<ArrayBuffer>
type BuiltFile = { body: Body; gzip: Body | null; contentType: string; etag: string }

export type Graphiql = {
  /** The page, whatever the address it is asked at; 503 as long as it has not been built. */
  page(): Response
  /** The file that the build gave this pathname; null when there is none. The request's headers are read for revalidation and compression. */
  asset(pathname: string, requestHeaders?: Headers): Response | null
}

/**
 * Serves the built front-end from memory. `directory` is the build's output; it is read here, once, so no path is ever made from a request.
 */
export function createGraphiql({ directory }: { directory: string }): Graphiql {
  const files = existsSync(directory) ? readFiles(directory) : new Map<string, BuiltFile>()
  const index = files.get(`${base}index.html`)
  files.delete(`${base}index.html`)
  return {
    page: () => (index ? answerPage(index) : answerUnbuilt()),
    asset(pathname, requestHeaders = new Headers()) {
      const file = files.get(pathname)
      return file ? answerAsset(file, requestHeaders) : null
    },
  }
}

function readFiles(directory: string): Map<string, BuiltFile> {
  const names = readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(join(directory, sep).length))
  const present = new Set(names)
  const files = new Map<string, BuiltFile>()
  for (const name of names) {
    const contentType = contentTypes.get(extname(name))
    if (!contentType) continue
    const body = read(join(directory, name))
    const gzip = present.has(`${name}.gz`) ? read(join(directory, `${name}.gz`)) : null
    const etag = createHash('sha256').update(body).digest('base64url').slice(0, 22)
    files.set(base + name.split(sep).join('/'), { body, gzip, contentType, etag })
  }
  return files
}

const read = (path: string): Body => new Uint8Array(readFileSync(path))

function answerPage({ body, contentType }: BuiltFile): Response {
  return new Response(body, {
    headers: {
      'content-type': contentType,
      'content-security-policy': graphiqlContentSecurityPolicy,
      'cache-control': 'no-store',
    },
  })
}

function answerUnbuilt(): Response {
  return new Response('GraphiQL has not been built. Run `npm run build`, then start again.\n', {
    status: 503,
    headers: { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' },
  })
}

function answerAsset({ body, gzip, contentType, etag }: BuiltFile, requestHeaders: Headers): Response {
  const compressed = gzip !== null && acceptsGzip(requestHeaders.get('accept-encoding') ?? '')
  // RFC 9110 §8.8.3: representations that differ by encoding need entity tags that differ.
  const tag = compressed ? `"${etag}-gzip"` : `"${etag}"`
  const headers = new Headers({
    'content-type': contentType,
    etag: tag,
    'cache-control': 'public, max-age=31536000, immutable',
    ...(gzip && { vary: 'Accept-Encoding' }),
  })
  if (matches(requestHeaders.get('if-none-match') ?? '', tag)) return new Response(null, { status: 304, headers })
  if (compressed) headers.set('content-encoding', 'gzip')
  return new Response(compressed ? gzip : body, { headers })
}

/** RFC 9110 §12.5.3: a coding with a weight above zero, or without one. */
const acceptsGzip = (header: string) =>
  header.split(',').some((coding) => {
    const [name = '', weight = 'q=1', ...more] = coding.split(';').map((part) => part.trim().toLowerCase())
    const value = weight.startsWith('q=') ? Number(weight.slice(2)) : 0
    return name === 'gzip' && more.length === 0 && value > 0 && value <= 1
  })

/** RFC 9110 §13.1.2: If-None-Match compares weakly. */
const matches = (header: string, tag: string) =>
  header.split(',').some((candidate) => candidate.trim() === '*' || candidate.trim().replace(/^W\//, '') === tag)

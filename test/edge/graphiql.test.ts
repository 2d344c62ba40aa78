import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createGraphiql, graphiqlContentSecurityPolicy, type Graphiql } from '../../src/edge/graphiql.ts'

const script = 'console.log("a script long enough to be worth compressing")'
let parent: string
let graphiql: Graphiql

beforeAll(() => {
  parent = mkdtempSync(join(tmpdir(), 'graphiql-'))
  const assets = join(parent, 'built', 'assets')
  mkdirSync(assets, { recursive: true })
  writeFileSync(join(parent, 'secret.js'), 'a file outside the build')
  writeFileSync(join(parent, 'built', 'index.html'), '<!doctype html><title>GraphiQL</title>')
  writeFileSync(join(assets, 'main-abc.js'), script)
  writeFileSync(join(assets, 'main-abc.js.gz'), gzipSync(script))
  writeFileSync(join(assets, 'font-abc.woff2'), new Uint8Array([1, 2, 3]))
  writeFileSync(join(assets, 'notes.md'), 'of no type that the page loads')
  graphiql = createGraphiql({ directory: join(parent, 'built') })
})

afterAll(() => rmSync(parent, { recursive: true }))

function asset(path: string, headers: Record<string, string> = {}): Response {
  const response = graphiql.asset(path, new Headers(headers))
  if (!response) throw new Error(`No asset at ${path}`)
  return response
}

describe('a path that the build did not make', () => {
  it.each([
    '/graphiql/assets/../../secret.js',
    '/graphiql/../secret.js',
    '/graphiql/%2e%2e/secret.js',
    '/graphiql/assets/..%2f..%2fsecret.js',
    '/graphiql/assets\\main-abc.js',
    '/graphiql//assets/main-abc.js',
    'assets/main-abc.js',
    '__proto__',
    '/graphiql/__proto__',
    '/graphiql/constructor',
    '/graphiql/assets',
    '/graphiql/assets/',
    '/graphiql/assets/main-abc.js.gz',
    '/graphiql/assets/notes.md',
    '/graphiql/index.html',
    '',
  ])('is not found: %j', (pathname) => {
    expect(graphiql.asset(pathname)).toBeNull()
  })
})

describe('a front-end that has not been built', () => {
  it('says how to build it, without a stack or a path', async () => {
    const unbuilt = createGraphiql({ directory: join(parent, 'absent') })
    const response = unbuilt.page()
    expect(response.status).toBe(503)
    expect(response.headers.get('content-type')).toBe('text/plain; charset=utf-8')
    expect(response.headers.get('cache-control')).toBe('no-store')
    const text = await response.text()
    expect(text).toContain('npm run build')
    expect(text).not.toContain(parent)
    expect(unbuilt.asset('/graphiql/assets/main-abc.js')).toBeNull()
  })
})

describe('the page', () => {
  it('is never stored and carries the one relaxed directive', async () => {
    const response = graphiql.page()
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8')
    expect(response.headers.get('cache-control')).toBe('no-store')
    expect(response.headers.get('content-security-policy')).toBe(graphiqlContentSecurityPolicy)
    expect(await response.text()).toContain('<title>GraphiQL</title>')
  })

  it('relaxes nothing but inline styles', () => {
    expect(graphiqlContentSecurityPolicy.split('; ')).toEqual([
      "default-src 'self'",
      "script-src 'self'",
      "object-src 'none'",
      "style-src 'self' 'unsafe-inline'",
    ])
  })

  it('can be answered again and again', async () => {
    expect(await graphiql.page().text()).toBe(await graphiql.page().text())
  })
})

describe('an asset', () => {
  it('is typed, tagged and kept for a year', async () => {
    const response = asset('/graphiql/assets/main-abc.js')
    expect(response.headers.get('content-type')).toBe('text/javascript; charset=utf-8')
    expect(response.headers.get('cache-control')).toBe('public, max-age=31536000, immutable')
    expect(response.headers.get('etag')).toMatch(/^"[\w-]{22}"$/)
    expect(response.headers.get('content-encoding')).toBeNull()
    expect(await response.text()).toBe(script)
  })

  it('keeps its bytes when it is a font', async () => {
    const response = asset('/graphiql/assets/font-abc.woff2')
    expect(response.headers.get('content-type')).toBe('font/woff2')
    expect(new Uint8Array(await response.arrayBuffer())).toEqual(new Uint8Array([1, 2, 3]))
  })

  it.each(['gzip', 'br, gzip;q=0.5', 'deflate,GZIP'])('comes compressed to who accepts %j', async (accepted) => {
    const response = asset('/graphiql/assets/main-abc.js', { 'accept-encoding': accepted })
    expect(response.headers.get('content-encoding')).toBe('gzip')
    expect(response.headers.get('vary')).toBe('Accept-Encoding')
    expect(new Uint8Array(await response.arrayBuffer())).toEqual(new Uint8Array(gzipSync(script)))
  })

  it.each(['', 'br', 'gzip;q=0', 'gzip;q=0.000', 'identity'])('comes plain to who accepts %j', async (accepted) => {
    const response = asset('/graphiql/assets/main-abc.js', { 'accept-encoding': accepted })
    expect(response.headers.get('content-encoding')).toBeNull()
    expect(response.headers.get('vary')).toBe('Accept-Encoding')
    expect(await response.text()).toBe(script)
  })

  it('is not sent again to who holds it, in the encoding that they hold', () => {
    const path = '/graphiql/assets/main-abc.js'
    const plain = asset(path).headers.get('etag') ?? ''
    const gzip = asset(path, { 'accept-encoding': 'gzip' }).headers.get('etag') ?? ''
    expect(gzip).not.toBe(plain)
    const held = asset(path, { 'if-none-match': `"other", W/${plain}` })
    expect(held.status).toBe(304)
    expect(held.headers.get('etag')).toBe(plain)
    expect(held.body).toBeNull()
    expect(asset(path, { 'if-none-match': gzip }).status).toBe(200)
  })
})

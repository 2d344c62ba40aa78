import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import type { Asked, Reply } from '../../src/kernel/outboundExchange.ts'
import { loopbackServer } from './loopbackServer.ts'
import { allAtLoopback, echo, failureOf, notAllowed, openOutbound, redirect } from './openOutbound.ts'

const tooLarge = { code: 'UPSTREAM_ERROR', message: 'The upstream sent too large an answer.' }
const timedOut = { code: 'UPSTREAM_TIMEOUT', message: 'The upstream did not answer in time.' }
const broken = { code: 'UPSTREAM_ERROR' }

const asked = (more: Partial<Asked> = {}): Asked => ({
  method: 'GET',
  headers: {},
  signal: new AbortController().signal,
  ...more,
})

async function textOf({ body }: Reply): Promise<string> {
  const chunks: Uint8Array[] = []
  for await (const chunk of body ?? []) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

describe('an exchange that goes past fetch', () => {
  it('reaches no address that fetch would not reach', async () => {
    const server = await loopbackServer((_, response) => response.end())
    const closed = openOutbound({ allowedCidrs: [] })
    for (const url of [
      server.origin,
      'http://169.254.169.254/',
      'http://[::1]/',
      'http://10.0.0.1/',
      'ftp://example.com/',
      'https://user:pass@example.com/',
    ])
      // prettier-ignore
      await expect(closed.exchange(url, asked()), url).rejects.toMatchObject(notAllowed)
    const rebound = openOutbound({ allowedCidrs: [], ...allAtLoopback })
    await expect(rebound.exchange(`http://name.example:${server.port}/`, asked())).rejects.toMatchObject(notAllowed)
    expect(server.connections()).toBe(0)
  })

  it('sends what it was given, and no header that belongs to the connection', async () => {
    const server = await loopbackServer((request, response) => void echo(request, response))
    const headers = { 'x-own': 'mine', host: 'other.example', connection: 'upgrade', 'transfer-encoding': 'chunked', 'content-length': '1' } // prettier-ignore
    const reply = await openOutbound().exchange(
      server.origin,
      asked({ method: 'POST', headers, body: 'the whole body' }),
    )
    const seen = JSON.parse(await textOf(reply)) as { method: string; headers: Record<string, string>; body: string }
    expect(seen).toMatchObject({ method: 'POST', body: 'the whole body', headers: { 'x-own': 'mine', 'content-length': '14' } }) // prettier-ignore
    expect(seen.headers['host']).toBe(new URL(server.origin).host)
  })

  it('answers a redirect as it came, and follows none', async () => {
    const server = await loopbackServer((_, response) => redirect(response, 'http://10.0.0.1/', 307))
    const reply = await openOutbound().exchange(server.origin, asked())
    expect([reply.status, reply.ok, reply.headers.get('Location')]).toEqual([307, false, 'http://10.0.0.1/'])
    await reply.body?.cancel()
    expect(server.requests).toHaveLength(1)
  })

  it('reads what is compressed in a way that it asked for, and refuses every other', async () => {
    const codings = { gzip: gzipSync('packed'), br: brotliCompressSync('packed'), identity: 'packed', zstd: 'packed' }
    const server = await loopbackServer(({ url = '' }, response) => {
      const coding = url.slice(1) as keyof typeof codings
      response.writeHead(200, { 'content-encoding': coding }).end(codings[coding])
    })
    const { exchange } = openOutbound()
    for (const coding of ['gzip', 'br', 'identity'])
      expect(await textOf(await exchange(`${server.origin}/${coding}`, asked())), coding).toBe('packed')
    await expect(exchange(`${server.origin}/zstd`, asked())).rejects.toMatchObject(broken)
  })

  it('is broken off once its body is too large: as announced, as it comes, and once unpacked', async () => {
    const server = await loopbackServer(({ url }, response) => {
      if (url === '/announced') response.writeHead(200, { 'content-length': 100_001 }).write('x')
      else if (url === '/packed')
        response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(Buffer.alloc(2_000_000))) // prettier-ignore
      else {
        const timer = setInterval(() => response.write(Buffer.alloc(20_000)), 1)
        response.on('close', () => clearInterval(timer))
      }
    })
    const { exchange } = openOutbound()
    await expect(exchange(`${server.origin}/announced`, asked())).rejects.toMatchObject(tooLarge)
    for (const path of ['/endless', '/packed'])
      await expect(exchange(server.origin + path, asked()).then(textOf), path).rejects.toMatchObject(tooLarge)
    expect(await textOf(await exchange(`${server.origin}/packed`, asked(), { maxResponseBytes: 3_000_000 }))).toHaveLength(2_000_000) // prettier-ignore
  })

  it('ends with its signal: before it begins, while it waits, and in the middle of its body', async () => {
    const server = await loopbackServer(({ url }, response) => void (url === '/body' && response.write('some')))
    const { exchange } = openOutbound()
    const gone = new Error('the caller has gone')
    await expect(exchange(server.origin, asked({ signal: AbortSignal.abort(gone) }))).rejects.toBe(gone)
    expect(server.connections()).toBe(0)
    const waiting = new AbortController()
    const unanswered = failureOf(exchange(server.origin, asked({ signal: waiting.signal })))
    setTimeout(() => waiting.abort(gone), 50)
    expect(await unanswered).toBe(gone)
    const reading = new AbortController()
    const reply = await exchange(`${server.origin}/body`, asked({ signal: reading.signal }))
    const read = failureOf(textOf(reply))
    setTimeout(() => reading.abort(gone), 50)
    expect(await read).toBe(gone)
  })

  it('waits for headers no longer than it may, and says when the other side breaks off', async () => {
    const server = await loopbackServer(({ url, socket }, response) => {
      if (url !== '/cut') return
      response.writeHead(200, { 'content-length': 100 }).write('some')
      setTimeout(() => socket.destroy(), 20)
    })
    const { exchange } = openOutbound({ connectTimeoutMs: 50, headersTimeoutMs: 50 })
    await expect(exchange(server.origin, asked())).rejects.toMatchObject(timedOut)
    await expect(exchange(`${server.origin}/cut`, asked()).then(textOf)).rejects.toMatchObject(broken)
  })

  it('gives its connection back when its body has been read, and ends it when it is cancelled', async () => {
    const server = await loopbackServer(({ url }, response) => {
      response.write('some')
      if (url !== '/endless') response.end()
    })
    const { exchange } = openOutbound()
    for (let n = 0; n < 5; n += 1) {
      await textOf(await exchange(server.origin, asked()))
      await pause(5)
    }
    expect(server.connections()).toBe(1)
    const endless = await exchange(`${server.origin}/endless`, asked())
    const socket = server.requests.at(-1)?.socket ?? expect.fail('it never arrived')
    const closed = once(socket, 'close')
    await endless.body?.cancel()
    await closed
  })
})

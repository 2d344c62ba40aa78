import { once } from 'node:events'
import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { loopbackServer } from './loopbackServer.ts'
import { failureOf, openOutbound } from './openOutbound.ts'

const tooLarge = { code: 'UPSTREAM_ERROR', message: 'The upstream sent too large an answer.' }
const timedOut = { code: 'UPSTREAM_TIMEOUT', message: 'The upstream did not answer in time.' }

describe('time', () => {
  it('runs out for a name that is never resolved', async () => {
    const { fetch } = openOutbound({ connectTimeoutMs: 50, resolve: () => new Promise(() => {}) })
    await expect(fetch('https://silent.example/')).rejects.toMatchObject(timedOut)
  })

  it('runs out for headers that do not come', async () => {
    const server = await loopbackServer(() => {})
    await expect(openOutbound({ headersTimeoutMs: 50 }).fetch(server.origin)).rejects.toMatchObject(timedOut)
  })

  it('runs out for an upstream that keeps saying "early hints"', async () => {
    const server = await loopbackServer((_, response) => {
      const timer = setInterval(() => response.writeEarlyHints({ link: '</a>; rel=preload' }), 10)
      response.on('close', () => clearInterval(timer))
    })
    await expect(
      openOutbound({ connectTimeoutMs: 100, headersTimeoutMs: 100 }).fetch(server.origin),
    ).rejects.toMatchObject(timedOut)
  })

  it('runs out for a request that waits too long for a free connection', async () => {
    const server = await loopbackServer((_, response) => response.write('open'))
    const { fetch } = openOutbound({ connectionsPerOrigin: 1, connectTimeoutMs: 50, headersTimeoutMs: 50 })
    const stream = await fetch(server.origin)
    await expect(fetch(server.origin)).rejects.toMatchObject(timedOut)
    await stream.body?.cancel()
  })

  it('runs out for a body that stalls, after what had come', async () => {
    const server = await loopbackServer((_, response) => response.write('some'))
    const response = await openOutbound({ bodyTimeoutMs: 50 }).fetch(server.origin)
    const reader = response.body!.getReader()
    expect(Buffer.from((await reader.read()).value!).toString()).toBe('some')
    await expect(reader.read()).rejects.toMatchObject(timedOut)
  })

  it('may be longer for one call’s body', async () => {
    const server = await loopbackServer((_, response) => {
      response.write('a')
      setTimeout(() => response.end('b'), 150)
    })
    const { fetch } = openOutbound({ bodyTimeoutMs: 30 })
    await expect(fetch(server.origin).then((r) => r.text())).rejects.toMatchObject(timedOut)
    expect(await (await fetch(server.origin, { bodyTimeoutMs: 2_000 })).text()).toBe('ab')
  })
})

describe('size', () => {
  it('announced above the cap fails at once', async () => {
    const server = await loopbackServer((_, response) =>
      response.writeHead(200, { 'content-length': 100_001 }).write('x'),
    )
    await expect(openOutbound().fetch(server.origin)).rejects.toMatchObject(tooLarge)
  })

  it('of a HEAD is no body, whatever it announces', async () => {
    const server = await loopbackServer((_, response) => response.writeHead(200, { 'content-length': 5_000_000 }).end())
    expect((await openOutbound().fetch(server.origin, { method: 'HEAD' })).status).toBe(200)
  })

  it('at the cap passes, one byte more fails the stream and ends the connection', async () => {
    const server = await loopbackServer((request, response) => {
      response.write('x'.repeat(100_000))
      if (request.url === '/over') response.write('x')
      else response.end()
    })
    const { fetch } = openOutbound()
    expect(await (await fetch(server.origin)).text()).toHaveLength(100_000)
    const over = await fetch(`${server.origin}/over`)
    const closed = once(server.requests[1]!.socket, 'close')
    await expect(over.text()).rejects.toMatchObject(tooLarge)
    await closed
  })

  it('may be larger for one call', async () => {
    const server = await loopbackServer((_, response) => response.end('x'.repeat(200_000)))
    const { fetch } = openOutbound()
    expect(await (await fetch(server.origin, { maxResponseBytes: 200_000 })).text()).toHaveLength(200_000)
    await expect(fetch(server.origin)).rejects.toMatchObject(tooLarge)
  })

  it('is counted after decompression, so a gzip bomb fails early', async () => {
    const bomb = gzipSync(Buffer.alloc(50_000_000))
    expect(bomb.length).toBeLessThan(100_000)
    const server = await loopbackServer((_, response) => response.setHeader('content-encoding', 'gzip').end(bomb))
    const reader = (await openOutbound().fetch(server.origin)).body!.getReader()
    let seen = 0
    const drain = async () => {
      for (let next = await reader.read(); !next.done; next = await reader.read()) seen += next.value.byteLength
    }
    expect(await failureOf(drain())).toMatchObject(tooLarge)
    expect(seen).toBeLessThanOrEqual(100_000)
  })

  it('is counted on the wire too, for input that decompresses to nothing', async () => {
    const gzipHeader = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3])
    const emptyBlocks = Buffer.alloc(50_000, Buffer.from([0, 0, 0, 0xff, 0xff]))
    const server = await loopbackServer((_, response) => {
      response.setHeader('content-encoding', 'gzip').write(gzipHeader)
      const more = () => {
        while (!response.destroyed && response.write(emptyBlocks));
      }
      response.on('drain', more)
      more()
    })
    await expect(
      openOutbound()
        .fetch(server.origin)
        .then((r) => r.text()),
    ).rejects.toMatchObject(tooLarge)
  })

  it('does not hold a stream back: each chunk passes as it comes', async () => {
    let send: (text: string) => void = () => {}
    const server = await loopbackServer((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      send = (text) => response.write(text)
      send('data: 1\n\n')
    })
    const reader = (await openOutbound().fetch(server.origin)).body!.getReader()
    const next = async () => Buffer.from((await reader.read()).value!).toString()
    for (const text of ['data: 1\n\n', 'data: 2\n\n', 'data: 3\n\n']) {
      expect(await next()).toBe(text)
      send(`data: ${Number(text[6]) + 1}\n\n`)
    }
    await reader.cancel()
    await once(server.requests[0]!.socket, 'close')
  })
})

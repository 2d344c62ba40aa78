import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { createServer, type AddressInfo } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { loopbackServer } from './loopbackServer.ts'
import { allAtLoopback, echo, echoOf, failureOf, notAllowed, openOutbound, redirect } from './openOutbound.ts'
import { selfSigned } from './selfSigned.ts'

describe('an outgoing request', () => {
  it('fits where a fetch is asked for, and answers a Response of the runtime', async () => {
    const server = await loopbackServer((request, response) => void echo(request, response))
    const fetch: typeof globalThis.fetch = openOutbound().fetch
    const response = await fetch(`${server.origin}/a?b=c#d`, {
      method: 'POST',
      body: 'hello',
      headers: { 'x-mine': '1' },
    })
    expect(response).toBeInstanceOf(Response)
    expect(response).toMatchObject({ status: 200, redirected: false, url: `${server.origin}/a?b=c#d` })
    expect(await echoOf(response)).toMatchObject({
      method: 'POST',
      url: '/a?b=c',
      body: 'hello',
      headers: { 'x-mine': '1' },
    })
  })

  it('takes a Request, forms and streams as bodies', async () => {
    const server = await loopbackServer((request, response) => void echo(request, response))
    const { fetch } = openOutbound()
    const post = async (body: BodyInit) => echoOf(await fetch(server.origin, { method: 'POST', body }))
    const form = new FormData()
    form.set('name', 'value')
    expect((await post(form)).body).toContain('name="name"')
    expect((await post(new URLSearchParams({ a: 'b' }))).headers['content-type']).toMatch(/urlencoded/)
    expect((await post(new Blob(['streamed']).stream())).body).toBe('streamed')
    const request = new Request(server.origin, { method: 'PUT', body: 'from a request' })
    expect(await echoOf(await fetch(request))).toMatchObject({ method: 'PUT', body: 'from a request' })
  })

  it('writes the host header itself, and no header that belongs to the connection', async () => {
    const server = await loopbackServer((request, response) => void echo(request, response))
    const headers = { host: 'other.example', connection: 'x-gone', 'proxy-authorization': 'Basic x', te: 'trailers' }
    const seen = (await echoOf(await openOutbound().fetch(server.origin, { headers }))).headers
    expect(seen['host']).toBe(`127.0.0.1:${server.port}`)
    expect(seen).not.toHaveProperty('proxy-authorization')
    expect(seen).not.toHaveProperty('te')
  })

  it('keeps the connection for the next request, and opens no more than the bound to one origin', async () => {
    const waiting: ServerResponse[] = []
    const server = await loopbackServer((request, response) => {
      if (request.url === '/quick') response.end()
      else if (waiting.push(response) === 2) for (const each of waiting.splice(0)) each.end()
    })
    const { fetch } = openOutbound({ connectionsPerOrigin: 2 })
    for (let i = 0; i < 10; i++) await (await fetch(`${server.origin}/quick`)).text()
    expect(server.connections()).toBeLessThanOrEqual(2)
    await Promise.all(Array.from({ length: 6 }, async () => (await fetch(`${server.origin}/slow`)).text()))
    expect(server.connections()).toBe(2)
  })

  it('does not go through a proxy that the environment names', async () => {
    const proxy = await loopbackServer((_, response) => response.end('proxied'))
    const server = await loopbackServer((_, response) => response.end('direct'))
    const names = ['HTTP_PROXY', 'http_proxy', 'HTTPS_PROXY', 'ALL_PROXY', 'NODE_USE_ENV_PROXY']
    const before = names.map((name) => process.env[name])
    onTestFinished(() =>
      names.forEach((name, i) =>
        before[i] === undefined ? delete process.env[name] : (process.env[name] = before[i]),
      ),
    )
    for (const name of names) process.env[name] = name.startsWith('NODE') ? '1' : proxy.origin
    expect(await (await openOutbound().fetch(server.origin)).text()).toBe('direct')
    expect(proxy.connections()).toBe(0)
  })

  it('fails as an upstream error when nobody listens, and after close', async () => {
    const outbound = openOutbound()
    const free = createServer().listen(0, '127.0.0.1')
    await once(free, 'listening')
    const url = `http://127.0.0.1:${(free.address() as AddressInfo).port}/`
    await once(free.close(), 'close')
    const error = await failureOf(outbound.fetch(url))
    expect(error).toMatchObject({ code: 'UPSTREAM_ERROR', cause: { cause: { code: 'ECONNREFUSED' } } })
    expect(String(error)).not.toContain('127.0.0.1')
    await outbound.close()
    await expect(outbound.fetch(url)).rejects.toMatchObject({ code: 'UPSTREAM_ERROR' })
  })
})

describe('TLS', () => {
  const tls = selfSigned('upstream.example')

  it('is verified against the name, though the connection is made to a judged address', async () => {
    const server = await loopbackServer((_, response) => response.end('secure'), { tls })
    const { fetch } = openOutbound({ ...allAtLoopback, trustedCas: [tls.cert] })
    expect(await (await fetch(`https://upstream.example:${server.port}/`)).text()).toBe('secure')
    await expect(fetch(`https://impostor.example:${server.port}/`)).rejects.toMatchObject({ code: 'UPSTREAM_ERROR' })
    expect(server.requests).toHaveLength(1)
  })

  it('refuses a certificate that nobody vouches for, whatever the environment says', async () => {
    const server = await loopbackServer((_, response) => response.end(), { tls })
    const before = process.env['NODE_TLS_REJECT_UNAUTHORIZED']
    process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0'
    onTestFinished(() => {
      if (before === undefined) delete process.env['NODE_TLS_REJECT_UNAUTHORIZED']
      else process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = before
    })
    await expect(openOutbound(allAtLoopback).fetch(`https://upstream.example:${server.port}/`)).rejects.toMatchObject({
      code: 'UPSTREAM_ERROR',
    })
    expect(server.requests).toHaveLength(0)
  })

  it('is not left by a redirect', async () => {
    const target = await loopbackServer((_, response) => response.end())
    const server = await loopbackServer((_, response) => redirect(response, target.origin), { tls })
    const { fetch } = openOutbound({ ...allAtLoopback, trustedCas: [tls.cert] })
    await expect(fetch(`https://upstream.example:${server.port}/`)).rejects.toMatchObject(notAllowed)
    expect(target.connections()).toBe(0)
  })
})

describe('an abort', () => {
  it('before the request sends nothing', async () => {
    const server = await loopbackServer((_, response) => response.end())
    const reason = new Error('changed my mind')
    await expect(openOutbound().fetch(server.origin, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    expect(server.connections()).toBe(0)
  })

  it('while waiting for headers rejects with its reason and ends the connection', async () => {
    const controller = new AbortController()
    const reason = new Error('changed my mind')
    let closed: Promise<unknown> = Promise.resolve()
    const server = await loopbackServer((request) => {
      closed = once(request.socket, 'close')
      controller.abort(reason)
    })
    await expect(openOutbound().fetch(server.origin, { signal: controller.signal })).rejects.toBe(reason)
    await closed
    expect(server.requests).toHaveLength(1)
  })

  it('inside the body fails the stream with its reason', async () => {
    const server = await loopbackServer((_, response) => response.write('some'))
    const controller = new AbortController()
    const response = await openOutbound().fetch(new Request(server.origin, { signal: controller.signal }))
    const reader = response.body!.getReader()
    await reader.read()
    const reason = new Error('changed my mind')
    controller.abort(reason)
    await expect(reader.read()).rejects.toBe(reason)
  })
})

describe('a broken upstream', () => {
  const rawServer = async (answer: string) => {
    const server = createServer((socket) => socket.once('data', () => socket.end(answer)).on('error', () => {}))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  }

  it.each([
    ['nothing', ''],
    ['no HTTP', 'SSH-2.0-OpenSSH_9.6\r\n'],
    ['a status out of range', 'HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n'],
    ['endless headers', `HTTP/1.1 200 OK\r\n${'x-a: aaaaaaaaaaaaaaaa\r\n'.repeat(2_000)}`],
  ])('that answers %s is an upstream error', async (_, answer) => {
    await expect(openOutbound().fetch(await rawServer(answer))).rejects.toMatchObject({ code: 'UPSTREAM_ERROR' })
  })

  it('that breaks off its body fails the stream as an upstream error', async () => {
    const response = await openOutbound().fetch(await rawServer('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort'))
    await expect(response.text()).rejects.toMatchObject({ code: 'UPSTREAM_ERROR' })
  })
})

import { describe, expect, it } from 'vitest'
import { loopbackServer } from './loopbackServer.ts'
import { allAtLoopback, echo, echoOf, failureOf, notAllowed, openOutbound, redirect } from './openOutbound.ts'

describe('a redirect', () => {
  it.each([301, 302, 303])('of status %i turns a POST into a GET without its body', async (status) => {
    const server = await loopbackServer((request, response) =>
      request.url === '/' ? redirect(response, '/next', status) : void echo(request, response),
    )
    const response = await openOutbound().fetch(server.origin, {
      method: 'POST',
      body: '{}',
      headers: { 'content-type': 'application/json' },
    })
    expect(response).toMatchObject({ redirected: true, url: `${server.origin}/next` })
    const seen = await echoOf(response)
    expect(seen).toMatchObject({ method: 'GET', url: '/next', body: '' })
    expect(seen.headers).not.toHaveProperty('content-type')
  })

  it.each([307, 308])('of status %i repeats method, body and headers at the same origin', async (status) => {
    const server = await loopbackServer((request, response) =>
      request.url === '/' ? redirect(response, '/next', status) : void echo(request, response),
    )
    const init = { method: 'POST', body: 'again', headers: { authorization: 'Bearer kept' } }
    expect(await echoOf(await openOutbound().fetch(server.origin, init))).toMatchObject({
      method: 'POST',
      body: 'again',
      headers: { authorization: 'Bearer kept' },
    })
  })

  it('cannot repeat a body that was a stream', async () => {
    const server = await loopbackServer((_, response) => redirect(response, '/next', 307))
    const body = new Blob(['once']).stream()
    const error = await failureOf(openOutbound().fetch(server.origin, { method: 'POST', body }))
    expect(error).toMatchObject({ code: 'UPSTREAM_ERROR', message: expect.stringMatching(/cannot be repeated/) })
    expect(server.requests).toHaveLength(1)
  })

  it('to another origin carries none of the headers that the caller gave but the safe ones', async () => {
    const target = await loopbackServer((request, response) => void echo(request, response))
    const server = await loopbackServer((_, response) => redirect(response, target.origin))
    const secrets = {
      authorization: 'Bearer s',
      cookie: 's=1',
      'x-api-key': 's',
      'private-token': 's',
      'mcp-session-id': 's',
    }
    const headers = {
      ...secrets,
      accept: 'text/event-stream',
      'mcp-protocol-version': '2025-11-25',
      'user-agent': 'platform',
    }
    const seen = (await echoOf(await openOutbound().fetch(server.origin, { headers }))).headers
    expect(server.requests[0]?.headers).toMatchObject(secrets)
    for (const name of Object.keys(secrets)) expect(seen).not.toHaveProperty(name)
    expect(seen).toMatchObject({
      accept: 'text/event-stream',
      'mcp-protocol-version': '2025-11-25',
      'user-agent': 'platform',
    })
  })

  it('does not give the headers back when it returns to the first origin', async () => {
    const detour = await loopbackServer((_, response) => redirect(response, `${home.origin}/end`))
    const home = await loopbackServer((request, response) =>
      request.url === '/end' ? void echo(request, response) : redirect(response, detour.origin),
    )
    const seen = await echoOf(await openOutbound().fetch(home.origin, { headers: { authorization: 'Bearer s' } }))
    expect(seen.url).toBe('/end')
    expect(seen.headers).not.toHaveProperty('authorization')
  })

  it('to a name is another origin, though it is the same server', async () => {
    const server = await loopbackServer((request, response) =>
      request.url === '/'
        ? redirect(response, `http://other.example:${server.port}/end`)
        : void echo(request, response),
    )
    const seen = await echoOf(
      await openOutbound(allAtLoopback).fetch(server.origin, { headers: { authorization: 'Bearer s' } }),
    )
    expect(seen.headers).not.toHaveProperty('authorization')
  })

  it.each([301, 302, 303, 307, 308])('of a POST to another origin is refused (%i)', async (status) => {
    const target = await loopbackServer((_, response) => response.end())
    const server = await loopbackServer((_, response) => redirect(response, target.origin, status))
    await expect(openOutbound().fetch(server.origin, { method: 'POST', body: '{}' })).rejects.toMatchObject(notAllowed)
    expect(target.connections()).toBe(0)
  })

  it.each([
    ['loopback', 'http://127.0.0.2:8080/'],
    ['loopback as a number', '//2130706434/'],
    ['metadata', 'http://169.254.169.254/latest/meta-data/'],
    ['metadata over https', 'https://169.254.169.254/'],
    ['metadata on IPv6', 'http://[fd00:ec2::254]/'],
    ['a private name', 'http://private.example/'],
    ['cleartext on the public net', 'http://93.184.216.34/'],
    ['credentials', 'http://user:pw@127.0.0.1/'],
    ['a file', 'file:///etc/passwd'],
    ['nonsense', 'http://'],
  ])('to %s is refused', async (_, location) => {
    const server = await loopbackServer((_request, response) => redirect(response, location))
    const resolve = () => Promise.resolve(['10.0.0.1'])
    await expect(openOutbound({ resolve }).fetch(server.origin)).rejects.toMatchObject(notAllowed)
    expect(server.requests).toHaveLength(1)
  })

  it('is followed as often as allowed, and no more', async () => {
    const server = await loopbackServer((request, response) => {
      const left = Number(request.url?.slice(1))
      return left === 0 ? response.end('arrived') : redirect(response, `/${left - 1}`)
    })
    expect(await (await openOutbound().fetch(`${server.origin}/3`)).text()).toBe('arrived')
    const error = await failureOf(openOutbound().fetch(`${server.origin}/4`))
    expect(error).toMatchObject({ code: 'UPSTREAM_ERROR', message: expect.stringMatching(/too often/) })
  })

  it('in a loop ends', async () => {
    const server = await loopbackServer((_, response) => redirect(response, '/'))
    await expect(openOutbound().fetch(server.origin)).rejects.toMatchObject({ code: 'UPSTREAM_ERROR' })
    expect(server.requests).toHaveLength(4)
  })

  it('is handed to a caller that asks for it, and fails one that forbids it', async () => {
    const server = await loopbackServer((_, response) => redirect(response, 'http://169.254.169.254/'))
    const response = await openOutbound().fetch(server.origin, { redirect: 'manual' })
    expect([response.status, response.headers.get('location')]).toEqual([302, 'http://169.254.169.254/'])
    await expect(openOutbound().fetch(server.origin, { redirect: 'error' })).rejects.toMatchObject({
      code: 'UPSTREAM_ERROR',
    })
  })
})

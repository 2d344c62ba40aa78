import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Passage } from '../../src/modules/gateway/types.ts'
import { connect, mount, passage, type Mode, type Mounted } from './peers/gateway.ts'
import { startRecorder, type Recorder } from './peers/recorder.ts'

let upstream: Recorder
let mounted: Mounted

beforeAll(async () => {
  upstream = await startRecorder('modern')
  upstream.extra.add('hidden')
  mounted = await mount()
})
afterAll(async () => {
  await mounted.close()
  await upstream.close()
})

const every = ['whoami', 'write', 'hidden']
const known = (tools: { name: string }[]) => tools.map(({ name }) => name).filter((name) => every.includes(name))
const callers: Record<string, { of: () => Passage; may: string[] }> = {
  'a reader of a trusted service': {
    of: () => passage({ url: upstream.url, scopes: ['mcp:read'] }),
    may: ['whoami', 'hidden'],
  },
  'a reader of a service that is not trusted': {
    of: () => passage({ url: upstream.url, scopes: ['mcp:read'], trusted: false }),
    may: [],
  },
  'a writer who may not read': { of: () => passage({ url: upstream.url, scopes: ['mcp:write'] }), may: ['write'] },
  'a developer, with one tool blocked': {
    of: () => passage({ url: upstream.url, tools: { hidden: 'BLOCKED' } }),
    may: ['whoami', 'write'],
  },
  'a reader, with the settings turned round': {
    of: () => passage({ url: upstream.url, scopes: ['mcp:read'], tools: { whoami: 'WRITE', write: 'READ' } }),
    may: ['write', 'hidden'],
  },
  'a viewer whose key claims to write': {
    of: () => passage({ url: upstream.url, role: 'VIEWER' }),
    may: ['whoami', 'hidden'],
  },
  'somebody without any scope': { of: () => passage({ url: upstream.url, scopes: [] }), may: [] },
}

describe.each(Object.entries(callers))('%s', (_, { of, may }) => {
  it('is listed exactly the tools that a call then reaches, at every door', async () => {
    expect(known(await mounted.gateway.listTools(of())).sort()).toEqual([...may].sort())
    for (const mode of ['legacy', 'auto'] satisfies Mode[]) {
      const client = await connect(mounted.door(of()), mode)
      expect(known((await client.listTools()).tools).sort()).toEqual([...may].sort())
      for (const name of every) {
        const reached = upstream.seen.filter(({ rpc }) => rpc === 'tools/call').length
        const call = client.callTool({ name, arguments: { n: 1 } })
        if (may.includes(name)) expect((await call).isError ?? false).toBe(false)
        else await expect(call).rejects.toMatchObject({ code: -32602, message: `Tool ${name} not found` })
        expect(mounted.records.at(-1)).toMatchObject({ tool: name, status: may.includes(name) ? 'ok' : 'denied' })
        expect(upstream.seen.filter(({ rpc }) => rpc === 'tools/call').length - reached).toBe(
          may.includes(name) ? 1 : 0,
        )
      }
      await client.close()
    }
    for (const name of every) {
      const call = mounted.gateway.callTool(of(), { name, arguments: { n: 1 }, requestId: 'r' })
      if (may.includes(name)) expect((await call).isError ?? false).toBe(false)
      else await expect(call).rejects.toMatchObject({ code: 'NOT_FOUND', message: 'No such tool.' })
    }
  })
})

it('answers a tool that is not the caller’s and one that does not exist in the same words', async () => {
  const client = await connect(mounted.door(passage({ url: upstream.url, tools: { hidden: 'BLOCKED' } })), 'auto')
  const said = async (name: string): Promise<string> =>
    client.callTool({ name, arguments: {} }).then(
      () => 'called',
      (error: unknown) => JSON.stringify({ ...(error as object), text: String(error) }).replaceAll(name, 'NAME'),
    )
  expect(await said('hidden')).toBe(await said('absent'))
  await client.close()
})

it('does not pass on methods that it does not know', async () => {
  const door = mounted.door(passage({ url: upstream.url }))
  for (const method of ['tasks/list', 'tasks/cancel', 'vendor/secret', 'constructor', '__proto__']) {
    const response = await fetch(door, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params: {} }),
    })
    expect(await response.json()).toMatchObject({ id: 1, error: { code: -32601 } })
  }
  expect(upstream.seen.map(({ rpc }) => rpc)).not.toContain('tasks/list')
})

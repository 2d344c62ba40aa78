import type { Client } from '@modelcontextprotocol/client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startEverything } from './peers/everything.ts'
import { connect, mount, passage, type Mode, type Mounted } from './peers/gateway.ts'
import { startRecorder, type Recorder } from './peers/recorder.ts'

let mounted: Mounted
const upstreams = new Map<string, Recorder>()

beforeAll(async () => {
  mounted = await mount({ requestMs: 2000 })
  for (const era of ['legacy', 'modern'] as const) upstreams.set(era, await startRecorder(era))
})
afterAll(async () => {
  await mounted.close()
  for (const upstream of upstreams.values()) await upstream.close()
})

const capabilities = { elicitation: { form: {} }, sampling: {} }
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** A client behind which somebody sits who answers `dish`, and a model that repeats what it is asked. */
const guest =
  (dish: string, thinkMs = 0) =>
  (client: Client) => {
    client.setRequestHandler('elicitation/create', async ({ params }) => {
      await wait(thinkMs)
      return { action: 'accept' as const, content: { dish: `${dish} (${params.message})` } }
    })
    client.setRequestHandler('sampling/createMessage', ({ params }) => ({
      model: dish,
      role: 'assistant' as const,
      content: { type: 'text' as const, text: JSON.stringify(params.messages) },
    }))
  }

const pairs = (['legacy', 'auto'] satisfies Mode[]).flatMap((mode) =>
  ['legacy', 'modern'].map((era) => ({ mode, era })),
)

describe.each(pairs)('a client that negotiates $mode, at an upstream of the $era era', ({ mode, era }) => {
  const upstream = () => upstreams.get(era) as Recorder
  const of = (user = 'ada') => passage({ url: upstream().url, user, token: user })

  it('is asked for input while the call goes on, and the answer reaches the upstream', async () => {
    const client = await connect(mounted.door(of()), mode, { capabilities }, guest('soup'))
    const { content } = await client.callTool({ name: 'order', arguments: { guest: 'Ada' } })
    expect(content).toEqual([{ type: 'text', text: 'Ada has soup (What will Ada have?)' }])
    const thought = await client.callTool({ name: 'think', arguments: { about: 'rain' } })
    expect(JSON.stringify(thought.content)).toContain('rain')
    await client.close()
  })

  it('may take longer than the upstream may', async () => {
    const client = await connect(mounted.door(of()), mode, { capabilities }, guest('stew', 2500))
    const { content } = await client.callTool({ name: 'order', arguments: { guest: 'Bo' } })
    expect(JSON.stringify(content)).toContain('Bo has stew')
    await client.close()
  })

  it('gets only its own questions, however many ask at once', async () => {
    const names = ['ann', 'ben', 'cat', 'dan']
    const orders = names.map(async (user) => {
      // Two pairs share a credential, and with it a connection.
      const shared = passage({
        url: upstream().url,
        user: `table-${user < 'c' ? 1 : 2}`,
        token: `table-${user < 'c' ? 1 : 2}`,
      })
      const client = await connect(mounted.door(shared), mode, { capabilities }, guest(`dish-of-${user}`, 20))
      const answers = await Promise.all(
        [1, 2, 3].map(
          async (n) => (await client.callTool({ name: 'order', arguments: { guest: `${user}${n}` } })).content,
        ),
      )
      await client.close()
      expect(answers).toEqual(
        [1, 2, 3].map((n) => [{ type: 'text', text: `${user}${n} has dish-of-${user} (What will ${user}${n} have?)` }]),
      )
    })
    await Promise.all(orders)
  })

  it('is not asked what it said that it cannot do', async () => {
    const client = await connect(mounted.door(of()), mode)
    const outcome: unknown = await client
      .callTool({ name: 'order', arguments: { guest: 'Ada' } })
      .catch((error: unknown) => error)
    expect(JSON.stringify(outcome)).not.toContain('has')
    await client.close()
  })

  it('hears log messages of its own call, at the level that it wants', async () => {
    const heard: unknown[] = []
    const client = await connect(mounted.door(of()), mode, {}, (each) => {
      each.setNotificationHandler('notifications/message', ({ params }) => void heard.push(params.data))
    })
    if (mode === 'legacy') await client.setLoggingLevel('error')
    const meta = mode === 'legacy' ? {} : { _meta: { 'io.modelcontextprotocol/logLevel': 'error' } }
    await client.callTool({ name: 'talk', arguments: {}, ...meta })
    await expect.poll(() => heard).toEqual(['shouted'])
    await client.close()
  })

  it('hears that a resource has changed only if it watches it', async () => {
    const heard: string[] = []
    const overheard: string[] = []
    const into = (list: string[]) => (client: Client) =>
      client.setNotificationHandler('notifications/resources/updated', ({ params }) => void list.push(params.uri))
    const client = await connect(mounted.door(of()), mode, {}, into(heard))
    const stranger = await connect(mounted.door(of()), mode, {}, into(overheard))
    if (mode === 'auto') await stranger.listen({ resourceSubscriptions: ['test://other'] })
    else await stranger.subscribeResource({ uri: 'test://other' })
    const subscription = mode === 'auto' ? await client.listen({ resourceSubscriptions: ['test://clock'] }) : undefined
    if (mode === 'legacy') await client.subscribeResource({ uri: 'test://clock' })
    await expect
      .poll(() => (upstream().resourceChanged('test://clock'), heard.length), { timeout: 4000 })
      .toBeGreaterThan(0)
    expect(new Set(heard)).toEqual(new Set(['test://clock']))
    if (mode === 'legacy') await client.unsubscribeResource({ uri: 'test://clock' })
    await subscription?.close()
    expect(overheard).toEqual([])
    if (mode === 'legacy') await stranger.unsubscribeResource({ uri: 'test://other' })
    await expect.poll(() => upstream().watched.has('test://clock'), { timeout: 4000 }).toBe(false)
    await client.close()
    await stranger.close()
  })
})

it('does not let anybody else answer, or see, a call that waits for input', async () => {
  const url = upstreams.get('legacy')?.url ?? ''
  const meta = {
    'io.modelcontextprotocol/protocolVersion': '2026-07-28',
    'io.modelcontextprotocol/clientInfo': { name: 'raw', version: '1' },
    'io.modelcontextprotocol/clientCapabilities': capabilities,
  }
  const call = async (door: URL, more: object, name = 'order') => {
    const response = await fetch(door, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
        'mcp-protocol-version': '2026-07-28',
        'mcp-method': 'tools/call',
        'mcp-name': name,
      },
      body: JSON.stringify({
        jsonrpc: '2.0',
        id: 1,
        method: 'tools/call',
        params: { name, arguments: { guest: 'Ada' }, _meta: meta, ...more },
      }),
    })
    return (await response.json()) as {
      result?: { requestState?: string; inputRequests?: Record<string, unknown>; content?: unknown }
      error?: object
    }
  }
  const mine = mounted.door(passage({ url, user: 'ada', token: 'ada' }))
  const theirs = mounted.door(passage({ url, user: 'eve', token: 'ada' }))
  const { result } = await call(mine, {})
  const requestState = result?.requestState ?? ''
  const [key = ''] = Object.keys(result?.inputRequests ?? {})
  const inputResponses = { [key]: { action: 'accept', content: { dish: 'poison' } } }
  const refused = { code: -32602, message: 'Invalid or expired requestState' }
  expect((await call(theirs, { requestState, inputResponses })).error).toMatchObject(refused)
  expect((await call(mine, { requestState, inputResponses }, 'think')).error).toMatchObject(refused)
  expect((await call(mine, { requestState: 'gateway-parked:guess', inputResponses })).error).toMatchObject(refused)
  const { result: done } = await call(mine, {
    requestState,
    inputResponses: { [key]: { action: 'accept', content: { dish: 'bread' } } },
  })
  expect(done?.content).toEqual([{ type: 'text', text: 'Ada has bread' }])
  expect((await call(mine, { requestState, inputResponses })).error).toMatchObject(refused)
})

it.each<Mode>(['legacy', 'auto'])(
  'lets server-everything elicit and sample, for a client that negotiates %s',
  async (mode) => {
    const everything = await startEverything()
    const client = await connect(mounted.door(passage({ url: everything.url })), mode, { capabilities }, guest('x'))
    client.setRequestHandler('elicitation/create', () => ({
      action: 'accept' as const,
      content: { name: 'Grace Hopper', check: true },
    }))
    const elicited = await client.callTool({ name: 'trigger-elicitation-request', arguments: {} })
    expect(JSON.stringify(elicited.content)).toContain('Grace Hopper')
    const sampled = await client.callTool({
      name: 'trigger-sampling-request',
      arguments: { prompt: 'clouds', maxTokens: 5 },
    })
    expect(JSON.stringify(sampled.content)).toContain('clouds')
    await client.close()
    await everything.close()
  },
)

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { connect, mount, passage, type Mode, type Mounted } from './peers/gateway.ts'
import { startRecorder, type Recorder } from './peers/recorder.ts'

const eras = ['legacy', 'modern'] as const
const modes: Mode[] = ['legacy', 'auto']

describe.each(eras)('an upstream of the %s era', (era) => {
  let upstream: Recorder
  let mounted: Mounted

  beforeAll(async () => {
    upstream = await startRecorder(era)
    mounted = await mount()
  })
  afterEach(() => {
    upstream.seen.length = 0
    mounted.records.length = 0
  })
  afterAll(async () => {
    await mounted.close()
    await upstream.close()
  })

  it.each(modes)(
    'receives its own credential and nothing of the platform or the client, who negotiates %s',
    async (mode) => {
      const client = await connect(
        mounted.door(passage({ url: upstream.url, token: `upstream-token-${mode}`, user: mode })),
        mode,
      )
      await client.listTools()
      await client.callTool({ name: 'whoami', arguments: { n: 1 } })
      await mounted.gateway.callTool(passage({ url: upstream.url, token: `upstream-token-${mode}`, user: mode }), {
        name: 'whoami',
        arguments: { n: 2 },
        requestId: 'a-request-id-of-ours',
      })
      expect(upstream.seen.length).toBeGreaterThan(0)
      for (const { headers } of upstream.seen) {
        expect(headers.authorization).toBe(`Bearer upstream-token-${mode}`)
        for (const name of ['cookie', 'x-api-key', 'x-forwarded-for', 'forwarded', 'x-request-id', 'traceparent'])
          expect(headers).not.toHaveProperty(name)
        expect(JSON.stringify(headers)).not.toMatch(/mcp_sk|platform|request-of|a-request-id|key-of/)
      }
      await client.close()
    },
  )

  it('is probed once, listed once, and connected to once, however many calls come', async () => {
    const of = passage({ url: upstream.url, user: 'busy', token: 'busy' })
    const client = await connect(mounted.door(of), 'auto')
    for (let n = 0; n < 20; n++) await client.callTool({ name: 'whoami', arguments: { n } })
    const count = (rpc: string) => upstream.seen.filter((each) => each.rpc === rpc).length
    expect(count('server/discover')).toBe(1)
    expect(count('initialize')).toBe(era === 'legacy' ? 1 : 0)
    expect(count('tools/list')).toBe(1)
    expect(count('tools/call')).toBe(20)
    await client.close()
  })

  it('never mixes two users, in hundreds of interleaved calls', async () => {
    const users = ['ada', 'bob']
    const clients = await Promise.all(
      users.flatMap((user) =>
        modes.map(async (mode) => ({
          user,
          client: await connect(mounted.door(passage({ url: upstream.url, user, token: `token-of-${user}` })), mode),
        })),
      ),
    )
    const answers = await Promise.all(
      Array.from({ length: 400 }, async (_, n) => {
        const { user, client } = clients[n % clients.length] ?? clients[0]!
        const { content } = await client.callTool({ name: 'whoami', arguments: { n } })
        return { user, n, content }
      }),
    )
    for (const { user, n, content } of answers)
      expect(content).toEqual([{ type: 'text', text: `Bearer token-of-${user}#${n}` }])
    expect(mounted.records).toHaveLength(400)
    for (const { passage: of, arguments: given, status } of mounted.records) {
      expect(status).toBe('ok')
      const { n } = given as { n: number }
      expect(of.actor.userId).toBe(answers[n]?.user)
    }
    await Promise.all(clients.map(({ client }) => client.close()))
  })

  it('is asked again by the same caller after it has forgotten the session, and the call is made once', async () => {
    const client = await connect(mounted.door(passage({ url: upstream.url, user: 'eve', token: 'eve' })), 'auto')
    await client.callTool({ name: 'whoami', arguments: { n: 1 } })
    upstream.expire()
    expect((await client.callTool({ name: 'whoami', arguments: { n: 2 } })).content).toEqual([
      { type: 'text', text: 'Bearer eve#2' },
    ])
    expect(mounted.records.map(({ status }) => status)).toEqual(['ok', 'ok'])
    await client.close()
  })

  it('is listed again when it says that its tools have changed, and its client is told', async () => {
    for (const mode of modes) {
      const of = passage({ url: upstream.url, user: `listener-${mode}`, token: mode })
      let heard = 0
      const client = await connect(mounted.door(of), mode, {
        listChanged: { tools: { autoRefresh: false, debounceMs: 0, onChanged: () => void heard++ } },
      })
      await client.listTools()
      await expect(client.callTool({ name: `new-${mode}`, arguments: {} })).rejects.toMatchObject({ code: -32602 })
      upstream.extra.add(`new-${mode}`)
      // Whoever listens may not have been connected yet, so it is said until it has been heard.
      await expect.poll(() => (upstream.toolsChanged(), heard), { timeout: 5000 }).toBeGreaterThan(0)
      if (era === 'modern')
        expect((await mounted.gateway.listTools(of)).map(({ name }) => name)).toContain(`new-${mode}`)
      await client.close()
    }
  })
})

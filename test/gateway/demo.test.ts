import { afterAll, beforeAll, expect, it } from 'vitest'
import { startDemoServer, type DemoServer } from '../../src/demo/mcpServer.ts'
import { connect, mount, passage, type Mode, type Mounted } from './peers/gateway.ts'

let demo: DemoServer
let mounted: Mounted

beforeAll(async () => {
  demo = await startDemoServer()
  mounted = await mount()
})

afterAll(async () => {
  await mounted.close()
  await demo.close()
})

it.each<Mode>(['legacy', 'auto'])(
  'gives a newcomer who negotiates %s something to read, to add up and to write',
  async (mode) => {
    const client = await connect(mounted.door(passage({ url: demo.url })), mode)
    expect((await client.listTools()).tools.map(({ name }) => name)).toEqual([
      'echo',
      'add',
      'recall',
      'remember',
      'forget',
    ])
    expect((await client.callTool({ name: 'add', arguments: { a: 2, b: 40 } })).structuredContent).toEqual({ sum: 42 })
    await client.callTool({ name: 'remember', arguments: { title: `list of ${mode}`, note: 'milk' } })
    expect((await client.callTool({ name: 'recall', arguments: { title: `list of ${mode}` } })).content).toEqual([
      { type: 'text', text: 'milk' },
    ])
    const { resources } = await client.listResources()
    const uri = resources.find(({ name }) => name === `list of ${mode}`)?.uri ?? ''
    expect((await client.readResource({ uri })).contents).toMatchObject([{ text: 'milk' }])
    const prompt = await client.getPrompt({ name: 'summarize-notes', arguments: { words: '10' } })
    expect(JSON.stringify(prompt.messages)).toContain('milk')
    await client.callTool({ name: 'forget', arguments: { title: `list of ${mode}` } })
    expect((await client.callTool({ name: 'recall', arguments: { title: `list of ${mode}` } })).isError).toBe(true)
    await client.close()
  },
)

it('offers a reader only what reads', async () => {
  const tools = await mounted.gateway.listTools(passage({ url: demo.url, scopes: ['mcp:read'] }))
  expect(tools.map(({ name }) => name)).toEqual(['echo', 'add', 'recall'])
})

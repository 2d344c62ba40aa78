import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { connect, mount, passage, type Mode, type Mounted } from './peers/gateway.ts'
import { startEverything } from './peers/everything.ts'

let upstream: Awaited<ReturnType<typeof startEverything>>
let mounted: Mounted

beforeAll(async () => {
  upstream = await startEverything()
  mounted = await mount()
})

afterAll(async () => {
  await mounted.close()
  await upstream.close()
  // Signal 0 only asks whether there is such a process.
  expect(() => process.kill(upstream.pid, 0)).toThrow('ESRCH')
})

describe.each<Mode>(['legacy', 'auto'])(
  'server-everything through the gateway, for a client that negotiates %s',
  (mode) => {
    const open = () => connect(mounted.door(passage({ url: upstream.url })), mode)

    it('negotiates the era that the client wants and mirrors what the upstream is', async () => {
      const client = await open()
      expect(client.getProtocolEra()).toBe(mode === 'auto' ? 'modern' : 'legacy')
      expect(client.getServerVersion()?.name).toBe('mcp-servers/everything')
      expect(client.getInstructions()).toContain('Everything')
      expect(client.getServerCapabilities()).toMatchObject({
        completions: {},
        logging: {},
        prompts: {},
        resources: {},
        tools: {},
      })
      expect(client.getServerCapabilities()).not.toHaveProperty('tasks')
      await client.close()
    })

    it('lists and calls tools: text, structured content, images, resource links', async () => {
      const client = await open()
      const { tools } = await client.listTools()
      expect(tools.map(({ name }) => name)).toEqual(expect.arrayContaining(['echo', 'get-sum', 'get-tiny-image']))
      expect((await client.callTool({ name: 'echo', arguments: { message: 'hello' } })).content).toEqual([
        { type: 'text', text: 'Echo: hello' },
      ])
      const structured = await client.callTool({ name: 'get-structured-content', arguments: { location: 'New York' } })
      expect(structured.structuredContent).toMatchObject({ temperature: expect.any(Number) })
      const image = await client.callTool({ name: 'get-tiny-image', arguments: {} })
      expect(image.content).toContainEqual(expect.objectContaining({ type: 'image', mimeType: 'image/png' }))
      const links = await client.callTool({ name: 'get-resource-links', arguments: { count: 2 } })
      expect(links.content.filter(({ type }) => type === 'resource_link')).toHaveLength(2)
      const reference = await client.callTool({
        name: 'get-resource-reference',
        arguments: { resourceType: 'Text', resourceId: 1 },
      })
      expect(reference.content).toContainEqual(expect.objectContaining({ type: 'resource' }))
      await client.close()
    })

    it('relays resources, templates, prompts and completion', async () => {
      const client = await open()
      const { resources } = await client.listResources()
      expect(resources.length).toBeGreaterThan(0)
      expect((await client.listResourceTemplates()).resourceTemplates.length).toBeGreaterThan(0)
      const read = await client.readResource({ uri: resources[0]?.uri ?? '' })
      expect(read.contents[0]?.uri).toBe(resources[0]?.uri)
      const { prompts } = await client.listPrompts()
      expect(prompts.map(({ name }) => name)).toContain('args-prompt')
      const prompt = await client.getPrompt({ name: 'args-prompt', arguments: { city: 'Paris', state: 'Texas' } })
      expect(JSON.stringify(prompt.messages)).toContain('Paris')
      const completed = await client.complete({
        ref: { type: 'ref/prompt', name: 'completable-prompt' },
        argument: { name: 'department', value: 'E' },
      })
      expect(completed.completion.values).toContain('Engineering')
      await client.close()
    })

    it('streams progress as it comes', async () => {
      const client = await open()
      const steps: number[] = []
      const result = await client.callTool(
        { name: 'trigger-long-running-operation', arguments: { duration: 0.3, steps: 3 } },
        { onprogress: ({ progress }) => steps.push(progress) },
      )
      expect(JSON.stringify(result.content)).toContain('completed')
      expect(steps).toEqual([1, 2, 3])
      await client.close()
    })

    it('stops the call when the client cancels it, and records that', async () => {
      const client = await open()
      const controller = new AbortController()
      const call = client.callTool(
        { name: 'trigger-long-running-operation', arguments: { duration: 20, steps: 100 } },
        { signal: controller.signal, onprogress: () => controller.abort('enough') },
      )
      await expect(call).rejects.toThrow()
      await expect.poll(() => mounted.records.at(-1)?.status).toBe('cancelled')
      await client.close()
    })

    it('answers an unknown tool and unfit arguments without asking the upstream, and passes its own refusals on', async () => {
      const client = await open()
      await expect(client.callTool({ name: 'nope', arguments: {} })).rejects.toMatchObject({
        code: -32602,
        message: 'Tool nope not found',
      })
      expect(mounted.records.at(-1)).toMatchObject({ tool: 'nope', status: 'denied' })
      await expect(client.callTool({ name: 'get-sum', arguments: { a: 'x', b: 2 } })).rejects.toMatchObject({
        code: -32602,
        data: { issues: [{ path: ['arguments', 'a'] }] },
      })
      expect(mounted.records.at(-1)).toMatchObject({
        tool: 'get-sum',
        status: 'invalid_arguments',
        arguments: { a: 'x', b: 2 },
      })
      await expect(client.getPrompt({ name: 'nope' })).rejects.toMatchObject({ code: -32602 })
      expect(mounted.records.at(-1)).toMatchObject({ method: 'prompts/get', tool: 'nope', status: 'upstream_error' })
      await client.close()
    })
  },
)

it('serves the control plane by the same path', async () => {
  const of = passage({ url: upstream.url })
  const tools = await mounted.gateway.listTools(of)
  expect(tools.map(({ name }) => name)).toContain('echo')
  const progress: number[] = []
  const call = { name: 'trigger-long-running-operation', arguments: { duration: 0.2, steps: 2 }, requestId: 'r1' }
  const result = await mounted.gateway.callTool(of, { ...call, onProgress: (p) => progress.push(p.progress) })
  expect(result.isError ?? false).toBe(false)
  expect(progress).toEqual([1, 2])
  await expect(mounted.gateway.callTool(of, { name: 'nope', requestId: 'r2' })).rejects.toMatchObject({
    code: 'NOT_FOUND',
  })
  expect(mounted.records.at(-1)).toMatchObject({ requestId: 'r2', status: 'denied' })
})

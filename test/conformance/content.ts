import { fromJsonSchema, ResourceTemplate, type McpServer } from '@modelcontextprotocol/server'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'

// A red pixel and a silent sound, the smallest that are valid.
// eslint-disable-next-line no-secrets/no-secrets -- a picture of one pixel
const png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=='
const wav = 'UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA='

export const text = (value: string) => ({ type: 'text' as const, text: value })
const image = { type: 'image' as const, data: png, mimeType: 'image/png' }
const embedded = (uri: string, content: string, mimeType = 'text/plain') => ({
  type: 'resource' as const,
  resource: { uri, mimeType, text: content },
})

/** JSON Schema 2020-12 with the vocabulary that a server, and whatever stands before it, has to leave as it is. */
const newestSchema = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  $defs: {
    address: {
      $anchor: 'addressDef',
      type: 'object',
      properties: { street: { type: 'string' }, city: { type: 'string' } },
    },
  },
  properties: {
    name: { type: 'string' },
    address: { $ref: '#/$defs/address' },
    contactMethod: { type: 'string', enum: ['phone', 'email'] },
    phone: { type: 'string' },
    email: { type: 'string' },
  },
  allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
  if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
  then: { required: ['phone'] },
  else: { required: ['email'] },
  additionalProperties: false,
}

const withHeader = {
  type: 'object',
  properties: { region: { type: 'string', 'x-mcp-header': 'Region' } },
  required: ['region'],
}

/** The tools, resources and prompts that the suites call by name and that answer at once. */
export function addContent(server: McpServer): void {
  const answers = (name: string, ...content: ({ type: 'audio'; data: string; mimeType: string } | typeof image | ReturnType<typeof text> | ReturnType<typeof embedded>)[]) =>
    server.registerTool(name, { description: `Answers ${name}` }, () => ({ content })) // prettier-ignore
  answers('test_simple_text', text('This is a simple text response for testing.'))
  answers('test_image_content', image)
  answers('test_audio_content', { type: 'audio', data: wav, mimeType: 'audio/wav' })
  answers('test_embedded_resource', embedded('test://embedded-resource', 'This is an embedded resource content.'))
  answers(
    'test_multiple_content_types',
    text('Multiple content types test:'),
    image,
    embedded('test://mixed-content-resource', JSON.stringify({ test: 'data', value: 123 }), 'application/json'),
  )
  server.registerTool('test_error_handling', { description: 'Fails' }, () => {
    throw new Error('This tool intentionally returns an error for testing')
  })
  server.registerTool(
    'test_tool_with_progress',
    { description: 'Reports progress', inputSchema: z.object({}) },
    async (_, { mcpReq }) => {
      const progressToken = mcpReq._meta?.progressToken
      for (const progress of [0, 50, 100]) {
        if (progressToken !== undefined)
          await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } })
        await sleep(20)
      }
      return { content: [text(String(progressToken))] }
    },
  )
  server.registerTool(
    'json_schema_2020_12_tool',
    { description: 'Has a schema of the newest kind', inputSchema: fromJsonSchema(newestSchema) },
    (values) => ({ content: [text(JSON.stringify(values))] }),
  )
  server.registerTool(
    'test_x_mcp_header',
    {
      description: 'Repeats an argument as a header',
      inputSchema: fromJsonSchema(withHeader),
    },
    (values) => ({ content: [text(JSON.stringify(values))] }),
  )
  addResources(server)
  addPrompts(server)
}

function addResources(server: McpServer): void {
  const plain = { mimeType: 'text/plain', description: 'For testing' }
  for (const [name, content] of [
    ['static-text', 'This is the content of the static text resource.'],
    ['watched-resource', 'Watched resource content'],
  ] as const)
    server.registerResource(name, `test://${name}`, plain, ({ href }) => ({
      contents: [{ uri: href, mimeType: 'text/plain', text: content }],
    }))
  server.registerResource('static-binary', 'test://static-binary', { mimeType: 'image/png' }, ({ href }) => ({
    contents: [{ uri: href, mimeType: 'image/png', blob: png }],
  }))
  const template = new ResourceTemplate('test://template/{id}/data', { list: undefined })
  server.registerResource('template', template, { mimeType: 'application/json' }, ({ href }, { id }) => {
    const data = { id, templateTest: true, data: `Data for ID: ${String(id)}` }
    return { contents: [{ uri: href, mimeType: 'application/json', text: JSON.stringify(data) }] }
  })
}

const message = <C>(content: C) => ({ role: 'user' as const, content })

function addPrompts(server: McpServer): void {
  server.registerPrompt('test_simple_prompt', { description: 'Without arguments' }, () => ({
    messages: [message(text('This is a simple prompt for testing.'))],
  }))
  server.registerPrompt(
    'test_prompt_with_arguments',
    { description: 'With two arguments', argsSchema: z.object({ arg1: z.string(), arg2: z.string() }) },
    ({ arg1, arg2 }) => ({ messages: [message(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`))] }),
  )
  server.registerPrompt(
    'test_prompt_with_embedded_resource',
    { description: 'With a resource', argsSchema: z.object({ resourceUri: z.string() }) },
    ({ resourceUri }) => ({
      messages: [
        message(embedded(resourceUri, 'Embedded resource content for testing.')),
        message(text('Please process the embedded resource above.')),
      ],
    }),
  )
  server.registerPrompt('test_prompt_with_image', { description: 'With an image' }, () => ({
    messages: [message(image), message(text('Please analyze the image above.'))],
  }))
}

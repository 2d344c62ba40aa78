import type { McpServer, ServerContext } from '@modelcontextprotocol/server'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { text } from './content.ts'

const oneOf = (...titles: [string, string][]) => titles.map(([value, title]) => ({ const: value, title }))
const options = ['option1', 'option2', 'option3']

/** SEP-1034: a default for each primitive type. */
const defaults = {
  name: { type: 'string', default: 'John Doe' },
  age: { type: 'integer', default: 30 },
  score: { type: 'number', default: 95.5 },
  status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
  verified: { type: 'boolean', default: true },
}
/** SEP-1330: each way to offer a choice. */
const choices = {
  untitledSingle: { type: 'string', enum: options },
  titledSingle: {
    type: 'string',
    oneOf: oneOf(['value1', 'First Option'], ['value2', 'Second Option'], ['value3', 'Third Option']),
  },
  legacyEnum: { type: 'string', enum: ['opt1', 'opt2', 'opt3'], enumNames: ['One', 'Two', 'Three'] },
  untitledMulti: { type: 'array', minItems: 1, maxItems: 3, items: { type: 'string', enum: options } },
  titledMulti: {
    type: 'array',
    minItems: 1,
    maxItems: 3,
    items: { anyOf: oneOf(['value1', 'First Choice'], ['value2', 'Second Choice'], ['value3', 'Third Choice']) },
  },
}

/** Tools and methods of the revisions that begin with `initialize`, whose servers make requests of their own. */
export function addLegacy(server: McpServer): void {
  const elicit = async ({ mcpReq }: ServerContext, message: string, properties: object, required: string[] = []) => {
    const params = { message, requestedSchema: { type: 'object', properties, required } }
    return mcpReq.send({ method: 'elicitation/create', params } as never)
  }
  const said = (value: unknown) => ({ content: [text(JSON.stringify(value))] })
  const inputSchema = z.object({})
  server.registerTool(
    'test_elicitation',
    { description: 'Asks the user', inputSchema: z.object({ message: z.string() }) },
    async ({ message }, context) => said(await elicit(context, message, { response: { type: 'string' } }, ['response'])),
  ) // prettier-ignore
  server.registerTool('test_elicitation_sep1034_defaults', { description: 'Has defaults', inputSchema }, async (_, context) =>
    said(await elicit(context, 'Please review the defaults', defaults))) // prettier-ignore
  server.registerTool('test_elicitation_sep1330_enums', { description: 'Has choices', inputSchema }, async (_, context) =>
    said(await elicit(context, 'Please choose', choices))) // prettier-ignore
  server.registerTool(
    'test_sampling',
    { description: 'Asks the model', inputSchema: z.object({ prompt: z.string() }) },
    async ({ prompt }, { mcpReq }) => {
      const params = { messages: [{ role: 'user' as const, content: text(prompt) }], maxTokens: 100 }
      const { content } = (await mcpReq.send({ method: 'sampling/createMessage', params })) as {
        content?: { text?: string }
      }
      return { content: [text(`LLM response: ${content?.text ?? ''}`)] }
    },
  )
  server.registerTool('test_tool_with_logging', { description: 'Logs', inputSchema }, async (_, { mcpReq }) => {
    for (const data of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
      await mcpReq.notify({ method: 'notifications/message', params: { level: 'info', data } })
      await sleep(20)
    }
    return { content: [text('Tool with logging executed successfully')] }
  })
  server.registerTool('test_reconnection', { description: 'Breaks its stream off', inputSchema }, async (_, context) => {
    context.http?.closeSSE?.()
    await sleep(100)
    return { content: [text('Reconnected')] }
  }) // prettier-ignore
  server.server.setRequestHandler('logging/setLevel', () => ({}))
  server.server.setRequestHandler('resources/subscribe', () => ({}))
  server.server.setRequestHandler('resources/unsubscribe', () => ({}))
}

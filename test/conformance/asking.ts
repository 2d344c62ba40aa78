import {
  CLIENT_CAPABILITIES_META_KEY,
  createRequestStateCodec,
  inputRequired,
  type ClientCapabilities,
  type McpServer,
  type ServerContext,
} from '@modelcontextprotocol/server'
import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { text } from './content.ts'

/** Signed, so that a state which a client has changed is known. */
export const states = createRequestStateCodec({ key: randomBytes(32) })

const asksFor = (message: string, properties: Record<string, { type: 'string' } | { type: 'boolean' }>) =>
  inputRequired.elicit({ message, requestedSchema: { type: 'object', properties, required: Object.keys(properties) } })
const asksModel = (prompt: string, maxTokens: number) =>
  inputRequired.createMessage({ messages: [{ role: 'user', content: text(prompt) }], maxTokens })

type Answers = Record<string, { action?: string; content?: unknown; roots?: unknown[] }>
const answersOf = ({ mcpReq }: ServerContext): Answers => (mcpReq.inputResponses ?? {}) as Answers
const given = (answer: Answers[string] | undefined, name: string): string | undefined => {
  const value = (answer?.content as Record<string, unknown> | undefined)?.[name]
  return typeof value === 'string' ? value : undefined
}
const said = (value: unknown) => ({ content: [text(typeof value === 'string' ? value : JSON.stringify(value))] })

/** Tools and a prompt of the 2026-07-28 revision that need more input first (SEP-2322). */
export function addMultiRoundTrip(server: McpServer): void {
  const tool = (name: string, work: (context: ServerContext) => object | Promise<object>) =>
    server.registerTool(
      `test_input_required_result_${name}`,
      { description: `Asks: ${name}`, inputSchema: z.object({}) },
      ((_: unknown, context: ServerContext) => work(context)) as never,
    )
  const nameAsked = asksFor('What is your name?', { name: { type: 'string' } })

  tool('elicitation', (context) => {
    const name = given(answersOf(context)['user_name'], 'name')
    return name === undefined ? inputRequired({ inputRequests: { user_name: nameAsked } }) : said(`Hello, ${name}!`)
  })
  tool('sampling', (context) => {
    const answer = answersOf(context)['capital_question']
    const capital_question = asksModel('What is the capital of France?', 100)
    return answer ? said(answer.content) : inputRequired({ inputRequests: { capital_question } })
  })
  tool('list_roots', (context) => {
    const answer = answersOf(context)['client_roots']
    const client_roots = inputRequired.listRoots()
    return answer ? said(answer.roots) : inputRequired({ inputRequests: { client_roots } })
  })
  for (const name of ['request_state', 'tampered_state'])
    tool(name, async (context) => {
      if (context.mcpReq.requestState() !== undefined) return said('state-ok')
      const confirm = asksFor('Please confirm', { ok: { type: 'boolean' } })
      return inputRequired({ inputRequests: { confirm }, requestState: await states.mint({ name }, context) })
    })
  tool('multiple_inputs', async (context) => {
    const answers = answersOf(context)
    const inputRequests = {
      user_name: nameAsked,
      greeting: asksModel('Generate a greeting', 50),
      client_roots: inputRequired.listRoots(),
    }
    if (Object.keys(inputRequests).every((key) => answers[key])) return said(answers)
    return inputRequired({ inputRequests, requestState: await states.mint({ all: true }, context) })
  })
  tool('multi_round', async (context) => {
    const answers = answersOf(context)
    if (answers['step2']) return said(answers['step2'].content)
    const round = answers['step1'] ? 2 : 1
    const step =
      round === 1
        ? { step1: asksFor('Step 1: What is your name?', { name: { type: 'string' } }) }
        : { step2: asksFor('Step 2: What is your favorite color?', { color: { type: 'string' } }) }
    return inputRequired({ inputRequests: step, requestState: await states.mint({ round }, context) })
  })
  tool('capabilities', ({ mcpReq }) => {
    if (mcpReq.inputResponses) return said(mcpReq.inputResponses)
    const able = capabilitiesOf(mcpReq)
    return inputRequired({
      inputRequests: {
        ...(able.elicitation ? { user_name: nameAsked } : {}),
        ...(able.sampling ? { greeting: asksModel('Generate a greeting', 50) } : {}),
      },
    })
  })
  server.registerPrompt('test_input_required_result_prompt', { description: 'Asks first' }, ((
    context: ServerContext,
  ) => {
    const given_ = given(answersOf(context)['user_context'], 'context')
    const user_context = asksFor('What context should the prompt use?', { context: { type: 'string' } })
    if (given_ === undefined) return inputRequired({ inputRequests: { user_context } })
    return { messages: [{ role: 'user', content: text(given_) }] }
  }) as never)
  addDiagnostics(server)
}

const capabilitiesOf = (request: ServerContext['mcpReq']): ClientCapabilities => {
  const envelope = request.envelope as Record<string, unknown> | undefined
  return (envelope?.[CLIENT_CAPABILITIES_META_KEY] ?? {}) as ClientCapabilities
}

function addDiagnostics(server: McpServer): void {
  const inputSchema = z.object({})
  // The SDK refuses to ask a client for what it has not declared.
  server.registerTool('test_missing_capability', { description: 'Needs sampling', inputSchema }, () =>
    inputRequired({ inputRequests: { greeting: asksModel('Generate a greeting', 50) } }),
  )
  server.registerTool('test_streaming_elicitation', { description: 'Asks by a result', inputSchema }, () =>
    inputRequired({ inputRequests: { user_name: asksFor('What is your name?', { name: { type: 'string' } }) } }),
  )
  server.registerTool('test_logging_tool', { description: 'Logs', inputSchema }, async (_, { mcpReq }) => {
    await mcpReq.log('info', 'logged')
    return said('done')
  })
}

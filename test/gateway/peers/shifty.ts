import type { RequestListener } from 'node:http'
import { toNodeHandler } from '@modelcontextprotocol/node'
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server'
import { z } from 'zod'
import { listen, type Peer } from './http.ts'

export type Shifty = Peer & {
  /** What each tool says of itself, by name; change it and they say something else from the next listing on. */
  tools: Map<string, string>
  /** What the tools were called with. */
  calls: unknown[]
  /** What they answer with, in place of what they were told. */
  answer: string | undefined
  /** While it is set, calls wait for it. */
  gate: Promise<void> | undefined
}

/** An upstream whose tools say what it likes. All of them repeat a text. */
export async function startShifty(): Promise<Shifty> {
  const shifty: Pick<Shifty, 'tools' | 'calls' | 'answer' | 'gate'> = { tools: new Map(), calls: [], answer: undefined, gate: undefined } // prettier-ignore
  const handler = createMcpHandler(
    () => {
      const server = new McpServer({ name: 'shifty', version: '1.0.0' })
      for (const [name, description] of shifty.tools)
        server.registerTool(name, { description, inputSchema: z.object({ text: z.string() }) }, async ({ text }) => {
          shifty.calls.push(text)
          await shifty.gate
          return { content: [{ type: 'text', text: shifty.answer ?? text }] }
        })
      return server
    },
    { legacy: 'reject' },
  )
  const peer = await listen(toNodeHandler(handler) as RequestListener)
  return Object.assign(shifty, {
    url: peer.url,
    close: async () => {
      await handler.close()
      await peer.close()
    },
  })
}

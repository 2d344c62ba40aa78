import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { toNodeHandler } from '@modelcontextprotocol/node'
import { createMcpHandler, McpServer, ResourceTemplate } from '@modelcontextprotocol/server'
import { z } from 'zod'

export type DemoServer = { url: string; close: () => Promise<void> }

/** How many notes the notebook holds; the oldest make room. */
const maxNotes = 100
const maxNoteLength = 2000

type Notebook = Map<string, string>

const text = (value: string) => [{ type: 'text' as const, text: value }]

/**
 * A small, real MCP service to try the platform on: it needs no account, no network and gives the same answer each
 * time. It speaks both eras and keeps its notes in memory, for all who call it.
 */
export async function startDemoServer({ host = '127.0.0.1', port = 0 } = {}): Promise<DemoServer> {
  const notebook: Notebook = new Map([
    ['welcome', 'Notes that you `remember` appear here. Try `recall` with the title "welcome".'],
  ])
  const handler = createMcpHandler(() => notebookServer(notebook))
  const serve = toNodeHandler(handler) as RequestListener
  const server = createServer((request, response) => {
    if (new URL(request.url ?? '/', 'http://demo').pathname === '/mcp') return void serve(request, response)
    response.writeHead(404).end()
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  const { port: bound } = server.address() as AddressInfo
  const close = async (): Promise<void> => {
    await handler.close()
    const closed = new Promise((resolve) => server.close(resolve))
    server.closeAllConnections()
    await closed
  }
  return { url: `http://${host.includes(':') ? `[${host}]` : host}:${bound}/mcp`, close }
}

function notebookServer(notebook: Notebook): McpServer {
  const server = new McpServer(
    { name: 'demo-notebook', title: 'Demo notebook', version: '1.0.0' },
    {
      instructions:
        'A notebook to try the platform on. `echo`, `add` and `recall` read; `remember` and `forget` write.',
    },
  )
  reading(server, notebook)
  writing(server, notebook)
  server.registerResource(
    'note',
    new ResourceTemplate('note://{title}', {
      list: () => ({
        resources: [...notebook.keys()].map((title) => ({ uri: `note://${encodeURIComponent(title)}`, name: title })),
      }),
      complete: { title: (typed) => [...notebook.keys()].filter((title) => title.startsWith(typed)) },
    }),
    { title: 'A note', description: 'One note of the notebook', mimeType: 'text/plain' },
    (uri, { title }) => {
      const note = notebook.get(decodeURIComponent(String(title)))
      return { contents: note === undefined ? [] : [{ uri: uri.href, mimeType: 'text/plain', text: note }] }
    },
  )
  server.registerPrompt(
    'summarize-notes',
    {
      title: 'Summarize the notes',
      description: 'Asks for a summary of all notes in so many words',
      argsSchema: z.object({ words: z.string().optional() }),
    },
    ({ words = '50' }) => {
      const notes = [...notebook].map(([title, note]) => `## ${title}\n${note}`).join('\n\n')
      return {
        messages: [{ role: 'user', content: { type: 'text', text: `Summarize in about ${words} words:\n\n${notes}` } }],
      }
    },
  )
  return server
}

function reading(server: McpServer, notebook: Notebook): void {
  const annotations = { readOnlyHint: true, openWorldHint: false }
  server.registerTool(
    'echo',
    {
      title: 'Echo',
      description: 'Says what you said',
      inputSchema: z.object({ message: z.string().max(maxNoteLength) }),
      annotations,
    },
    ({ message }) => ({ content: text(message) }),
  )
  server.registerTool(
    'add',
    {
      title: 'Add',
      description: 'Adds two numbers',
      inputSchema: z.object({ a: z.number(), b: z.number() }),
      outputSchema: z.object({ sum: z.number() }),
      annotations,
    },
    ({ a, b }) => ({ content: text(`${a} + ${b} = ${a + b}`), structuredContent: { sum: a + b } }),
  )
  server.registerTool(
    'recall',
    {
      title: 'Recall',
      description: 'Reads one note, or lists all titles',
      inputSchema: z.object({ title: z.string().optional() }),
      annotations,
    },
    ({ title }) => {
      if (title === undefined) return { content: text([...notebook.keys()].join('\n')) }
      const note = notebook.get(title)
      return note === undefined
        ? { content: text(`There is no note “${title}”.`), isError: true }
        : { content: text(note) }
    },
  )
}

function writing(server: McpServer, notebook: Notebook): void {
  server.registerTool(
    'remember',
    {
      title: 'Remember',
      description: 'Writes a note; one with the same title is replaced',
      inputSchema: z.object({ title: z.string().min(1).max(100), note: z.string().max(maxNoteLength) }),
      annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: true, openWorldHint: false },
    },
    ({ title, note }) => {
      notebook.delete(title)
      notebook.set(title, note)
      const [oldest] = notebook.keys()
      if (notebook.size > maxNotes && oldest !== undefined) notebook.delete(oldest)
      return { content: text(`Remembered “${title}”.`) }
    },
  )
  server.registerTool(
    'forget',
    {
      title: 'Forget',
      description: 'Removes one note',
      inputSchema: z.object({ title: z.string() }),
      annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: false },
    },
    ({ title }) => ({ content: text(notebook.delete(title) ? `Forgot “${title}”.` : `There is no note “${title}”.`) }),
  )
}

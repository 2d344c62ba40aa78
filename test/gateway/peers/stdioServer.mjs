// A stdio MCP server that shows what it was given and misbehaves on demand. ERA=legacy speaks the legacy era alone.
import { spawn } from 'node:child_process'
import { acceptedContent, inputRequired, McpServer } from '@modelcontextprotocol/server'
import { serveStdio, StdioServerTransport } from '@modelcontextprotocol/server/stdio'
import { z } from 'zod'

const text = (value) => ({
  content: [{ type: 'text', text: typeof value === 'string' ? value : JSON.stringify(value) }],
})
const annotations = { readOnlyHint: true }
const dish = z.object({ dish: z.string() })

function build() {
  const server = new McpServer(
    { name: 'stdio', version: '1.0.0' },
    { capabilities: { tools: { listChanged: true }, logging: {} } },
  )
  const tool = (name, inputSchema, work) =>
    server.registerTool(name, { inputSchema: z.object(inputSchema), annotations }, work)
  tool('self', {}, () => text({ pid: process.pid, cwd: process.cwd(), argv: process.argv.slice(2), env: process.env }))
  tool('echo', { n: z.number(), ms: z.number().optional() }, async ({ n, ms = 0 }) => {
    if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms))
    return text(`${n}`)
  })
  tool('crash', {}, () => process.exit(3))
  tool('hog', {}, async () => {
    const held = []
    for (;;) {
      held.push(Buffer.alloc(8 * 2 ** 20, 1))
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  })
  tool('flood', {}, () => {
    process.stdout.write('x'.repeat(3 * 2 ** 20))
    return new Promise(() => undefined)
  })
  tool('breed', {}, () => {
    const pids = [false, true].map((detached) => spawn('sleep', ['600'], { detached, stdio: 'ignore' }).pid)
    return text(pids)
  })
  tool('stubborn', {}, () => {
    process.on('SIGTERM', () => undefined)
    process.stdin.on('end', () => undefined)
    setInterval(() => undefined, 1000)
    return text('"staying"')
  })
  tool('progress', { n: z.number() }, async ({ n }, { mcpReq }) => {
    const progressToken = mcpReq._meta?.progressToken
    for (let progress = 1; progress <= 3; progress++) {
      if (progressToken !== undefined)
        await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress: progress * n } })
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    return text(`${n} done`)
  })
  tool('order', {}, (_, { mcpReq }) => {
    const chosen = acceptedContent(mcpReq.inputResponses, 'menu', dish)
    if (chosen) return text(`one ${chosen.dish}`)
    return inputRequired({ inputRequests: { menu: inputRequired.elicit({ message: 'What?', requestedSchema: dish }) } })
  })
  tool('grow', {}, () => {
    tool('grown', {}, () => text('grown'))
    return text('ok')
  })
  return server
}

process.stderr.write(`hello, my credential is ${process.env.TOKEN ?? 'none'}\n`)
if (process.env.ERA === 'legacy') await build().connect(new StdioServerTransport())
else serveStdio(build)

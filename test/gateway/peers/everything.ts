import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { createRequire } from 'node:module'

const entry = createRequire(import.meta.url).resolve('@modelcontextprotocol/server-everything/dist/index.js')

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return address.port
}

/** The reference server, as a process of its own, speaking the legacy family over Streamable HTTP. */
export async function startEverything(): Promise<{ url: string; pid: number; close: () => Promise<void> }> {
  const port = await freePort()
  const child = spawn(process.execPath, [entry, 'streamableHttp'], {
    env: { PATH: process.env['PATH'], PORT: String(port) },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const exited = once(child, 'exit')
  const { stderr } = child
  await new Promise<void>((resolve, reject) => {
    let said = ''
    stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString()
      if (/listening|port/i.test(said)) resolve()
    })
    child.once('exit', () => reject(new Error(`server-everything ended: ${said}`)))
  })
  return {
    url: `http://127.0.0.1:${port}/mcp`,
    pid: child.pid ?? 0,
    close: async () => {
      child.kill('SIGKILL')
      await exited
    },
  }
}

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'

/** A Redis of the test's own, so that it can be stopped in the middle. */
export type TestRedis = { settings: Record<string, string>; stop(): Promise<void> }

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

export async function startRedis(): Promise<TestRedis> {
  const port = await freePort()
  const server = spawn(
    'redis-server',
    ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--daemonize', 'no'],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  const exited = once(server, 'exit')
  for await (const chunk of server.stdout) if (String(chunk).includes('Ready to accept connections')) break
  return {
    settings: { REDIS_URL: `redis://127.0.0.1:${port}`, REDIS_KEY_PREFIX: `test-${port}:` },
    async stop() {
      server.kill('SIGKILL')
      await exited
    },
  }
}

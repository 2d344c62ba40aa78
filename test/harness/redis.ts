import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'

const redisHere = spawnSync('redis-server', ['--version'], { stdio: 'ignore' }).status === 0
if (!redisHere)
  process.stderr.write('Redis was not found on this machine: what needs it is left out here; CI runs it.\n')

/** The shared stores that a test of this machine can start for itself. */
export const ownStores: readonly 'Redis'[] = redisHere ? ['Redis'] : []

/** Where limits and locks can be counted here. */
export const counterStores = ['the store of the database in use', ...ownStores] as const

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

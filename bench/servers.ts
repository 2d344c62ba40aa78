import { fork, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { Slice, Target } from './load.ts'

export const root = fileURLToPath(new URL('..', import.meta.url))

const running = new Set<ChildProcess>()

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

export type Started = { origin: string; pid: number; stop: () => Promise<void> }

const tsx = ['--import', 'tsx']

/**
 * Starts a server as a process of its own and waits until it answers. `script` is a file of this project; the bench's own run
 * through tsx, whose work is done before the first request comes.
 */
export async function startServer(
  script: string,
  environment: Record<string, string>,
  { port, probe, args = [] }: { port: number; probe: string; args?: string[] },
): Promise<Started> {
  const options = script.startsWith('bench/') ? tsx : []
  const child = spawn(process.execPath, [...options, ...args, script], {
    cwd: root,
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], NODE_ENV: 'production', ...environment },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  running.add(child)
  let stderr = ''
  child.stderr?.on('data', (chunk: Buffer) => (stderr = (stderr + chunk.toString()).slice(-4000)))
  let ended = false
  const exited = once(child, 'exit').then(() => {
    ended = true
    running.delete(child)
  })
  const origin = `http://127.0.0.1:${port}`
  const until = Date.now() + 60_000
  for (;;) {
    if (ended || Date.now() > until) throw new Error(`${script} did not start:\n${stderr}`)
    const answered = await fetch(origin + probe).then(async (response) => (await response.text(), true), () => false) // prettier-ignore
    if (answered) break
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), 10_000)
    await exited
    clearTimeout(timer)
  }
  return { origin, pid: child.pid ?? 0, stop }
}

/** The load generator, in its own process; it runs one slice at a time. */
export function startLoad() {
  const child = fork(fileURLToPath(new URL('load.ts', import.meta.url)), { execArgv: tsx, cwd: root })
  running.add(child)
  let last = 0
  return {
    slice(target: Target, connections: number, durationMs: number): Promise<Slice> {
      const id = (last += 1)
      return new Promise((resolve, reject) => {
        const listen = (answer: { id: number; slice?: Slice; error?: string }): void => {
          if (answer.id !== id) return
          child.off('message', listen)
          if (answer.slice) resolve(answer.slice)
          else reject(new Error(answer.error))
        }
        child.on('message', listen)
        child.send({ id, target, connections, durationMs })
      })
    },
    stop: () => void child.kill(),
  }
}

/** Ends whatever this bench started, by its own handles; for a bench that is interrupted. */
export const stopAll = (): void => {
  for (const child of running) child.kill('SIGKILL')
}

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../..', import.meta.url))

// Nothing of the test run's own environment is a setting of the process.
const environment = (settings: Record<string, string>) => ({
  PATH: process.env['PATH'] ?? '',
  HOME: process.env['HOME'] ?? '',
  BCRYPT_COST: '10',
  ...settings,
})

export type Ended = { code: number | null; stdout: string; stderr: string }

/** Runs a command to its end, in the project's folder. */
export async function run(
  command: string,
  args: string[],
  settings: Record<string, string> = {},
  input = '',
): Promise<Ended> {
  const child = spawn(command, args, { cwd: root, env: environment(settings), stdio: ['pipe', 'pipe', 'pipe'] }) // prettier-ignore
  const ended: Ended = { code: null, stdout: '', stderr: '' }
  child.stdout.on('data', (chunk: Buffer) => (ended.stdout += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (ended.stderr += chunk.toString()))
  child.stdin.on('error', () => {}).end(input)
  ;[ended.code] = (await once(child, 'close')) as [number | null]
  return ended
}

export const cli = (args: string[], settings: Record<string, string> = {}, input = ''): Promise<Ended> =>
  run(process.execPath, ['bin/mcp-platform.js', ...args], settings, input)

/** The built server as its own process, as an operator starts it. */
export type Running = {
  address: string
  pid: number
  /** From the start of the process to its ready line. */
  readyAfterMs: number
  output: () => string
  /** Resolves when standard output holds the text. */
  printed: (text: string) => Promise<void>
  signal: (name: NodeJS.Signals) => void
  /** Exit code; null where a signal ended it. */
  exited: Promise<number | null>
  stop: () => Promise<number | null>
}

/** Starts `node bin/start.js` on a free port; answers when it says that it is ready, and throws what it said if it ends before. */
export async function start(settings: Record<string, string>): Promise<Running> {
  const began = performance.now()
  const child: ChildProcess = spawn(process.execPath, ['bin/start.js'], { cwd: root, env: environment({ PORT: '0', ...settings }), stdio: ['ignore', 'pipe', 'pipe'] }) // prettier-ignore
  let stdout = ''
  let stderr = ''
  const waiting = new Set<() => void>()
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  child.stdout?.on('data', (chunk: Buffer) => {
    stdout += chunk.toString()
    for (const check of waiting) check()
  })
  const exited = once(child, 'close').then(([code]) => code as number | null)
  const printed = (text: string | RegExp): Promise<void> =>
    new Promise((resolve, reject) => {
      const check = (): void => {
        if (typeof text === 'string' ? !stdout.includes(text) : !text.test(stdout)) return
        waiting.delete(check)
        resolve()
      }
      waiting.add(check)
      check()
      void exited.then((code) => reject(new Error(`The process ended (${code}):\n${stderr}${stdout}`)))
    })
  const ready = /^ready (http:\/\/\S+)\n/m
  await printed(ready)
  return {
    address: ready.exec(stdout)?.[1] ?? '',
    pid: child.pid ?? 0,
    readyAfterMs: performance.now() - began,
    output: () => stdout,
    printed,
    signal: (name) => void child.kill(name),
    exited,
    stop: () => {
      child.kill('SIGTERM')
      return exited
    },
  }
}

import { spawn, type ChildProcess } from 'node:child_process'
import { chown, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import type { Platform } from '../../kernel/platform.ts'
import type { Secret } from '../../kernel/secret.ts'
import { askToEnd, familyOf, killFamily, type RunningProcess } from './hostedFamily.ts'
import { LineSplitter } from './hostedLines.ts'
import type { Json } from './types.ts'
import { upstreamError } from './upstreamErrors.ts'

export type CatalogueEntry = NonNullable<Platform['config']['catalogue']>['services'][string]

/** For whom a process runs; what the placeholders of its catalogue entry stand for. */
export type Tenancy = { organizationId: string; serviceId: string; userId: string; credential: Secret | undefined }

/** Why a process is no more. `idle`, `lifetime` and `closed` are ordinary; the others count as crashes. */
export type Ending = 'idle' | 'lifetime' | 'closed' | 'exited' | 'memory' | 'processes' | 'output'

type Handlers = { onMessage: (message: Json) => void; onSaid: (text: string) => void; onEnd: (why: Ending) => void }

const searchPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const graceMs = 1000
/** What a runtime reserves and does not use; the sum of what is used is judged every second. */
const headroomMebibytes = 256
const maxUnread = 16 * 2 ** 20
const minuteMs = 60_000

/**
 * Sets limits that the kernel keeps, and leaves a watchman in the process group: the platform holds the other end of
 * descriptor 3, so when the platform dies, however suddenly, all that it started dies too. Children that left the group
 * are known by the working directory in their environment, which no other process has.
 */
const launcher = `
ulimit -c 0; ulimit -d "$1" || :; ulimit -f "$2" || :; shift 2
(
  trap '' TERM INT HUP
  read -r _ <&3
  read -r own _ </proc/self/stat
  for each in /proc/[0-9]*; do
    pid="\${each#/proc/}"
    if [ "$pid" != "$own" ] && grep -qsF "TMPDIR=$TMPDIR" "$each/environ"; then kill -KILL "$pid"; fi
  done
  rm -rf "$TMPDIR"
  kill -KILL 0
) </dev/null >/dev/null 2>&1 &
exec 3<&-
exec "$@"`

/** One process of the operator's catalogue, and all its children, from start to end. It speaks JSON, a message a line. */
export class HostedProcess {
  readonly #child: ChildProcess
  readonly #directory: string
  readonly #entry: CatalogueEntry
  readonly #handlers: Handlers
  readonly #ended: Promise<void>
  readonly #lifetime: NodeJS.Timeout
  #why: Ending | undefined
  #minute = { began: 0, bytes: 0 }

  static async start(entry: CatalogueEntry, tenancy: Tenancy, handlers: Handlers): Promise<HostedProcess> {
    const directory = await mkdtemp(join(tmpdir(), 'mcp-hosted-'))
    if (entry.userId !== undefined) await chown(directory, entry.userId, entry.groupId ?? entry.userId)
    return new HostedProcess(entry, tenancy, handlers, directory)
  }

  private constructor(entry: CatalogueEntry, tenancy: Tenancy, handlers: Handlers, directory: string) {
    this.#entry = entry
    this.#handlers = handlers
    this.#directory = directory
    const { memoryMebibytes, fileMebibytes, lifetimeSeconds } = entry.limits
    const fill = (text: string): string => filled(text, tenancy, directory)
    const own = Object.fromEntries(Object.entries(entry.environment).map(([name, text]) => [name, fill(text)]))
    const limits = [String((memoryMebibytes + headroomMebibytes) * 1024), String(fileMebibytes * 2048)]
    const command = [fill(entry.command), ...entry.arguments.map(fill)]
    this.#child = spawn('/bin/sh', ['-c', launcher, 'hosted', ...limits, ...command], {
      cwd: directory,
      env: { PATH: searchPath, HOME: directory, LANG: 'C.UTF-8', ...own, TMPDIR: directory },
      stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
      // A session and a group of its own, which is what is ended.
      detached: true,
      ...(entry.userId === undefined ? {} : { uid: entry.userId, gid: entry.groupId ?? entry.userId }),
    })
    this.#ended = new Promise((resolve) => {
      const end = (): void => void this.#clear().then(resolve)
      this.#child.once('exit', end)
      this.#child.once('error', end)
    })
    this.#lifetime = setTimeout(() => void this.stop('lifetime'), lifetimeSeconds * 1000).unref()
    this.#listen(handlers)
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** Whether it has ended, or is about to. */
  get ending(): boolean {
    return this.#why !== undefined
  }

  send(message: object): void {
    const { stdin } = this.#child as { stdin: Writable }
    if (this.#why !== undefined || !stdin.writable) throw upstreamError('The service has ended.')
    if (stdin.writableLength > maxUnread) throw upstreamError('The service does not take what it is sent.')
    stdin.write(`${JSON.stringify(message)}\n`)
  }

  /** Its standard input ends, then it is asked to end, then it and its children are ended. */
  async stop(why: Ending): Promise<void> {
    this.#why ??= why
    this.#child.stdin?.end()
    const terminate = setTimeout(() => this.pid !== undefined && askToEnd(this.pid), graceMs)
    const kill = setTimeout(() => this.#kill(), graceMs * 2)
    await this.#ended
    clearTimeout(terminate)
    clearTimeout(kill)
  }

  /** Ends it without asking. */
  async kill(): Promise<void> {
    this.#break('closed')
    await this.#ended
  }

  /** Ends the process if the family uses more than it may. */
  judge(table: readonly RunningProcess[]): void {
    if (this.pid === undefined || this.#why !== undefined) return
    const family = familyOf(this.pid, table)
    const { memoryMebibytes, processes } = this.#entry.limits
    const resident = family.reduce((sum, { residentBytes }) => sum + residentBytes, 0)
    if (resident > memoryMebibytes * 2 ** 20) this.#break('memory')
    // The watchman is not the operator's.
    else if (family.length - 1 > processes) this.#break('processes')
  }

  #listen({ onMessage, onSaid }: Handlers): void {
    const { stdin, stdout, stderr } = this.#child as { stdin: Writable; stdout: Readable; stderr: Readable }
    // It went away with something unread; its exit tells the rest.
    stdin.on('error', () => undefined)
    this.#child.stdio[3]?.on('error', () => undefined)
    const lines = new LineSplitter(this.#entry.limits.messageBytes)
    stdout.on('data', (chunk: Buffer) => {
      const whole = this.#metered(chunk) ? lines.push(chunk) : undefined
      if (!whole) return this.#break('output')
      for (const line of whole) {
        const message = parsed(line)
        if (message) onMessage(message)
      }
    })
    stderr.on('data', (chunk: Buffer) => {
      if (this.#metered(chunk)) onSaid(chunk.toString('utf8'))
      else this.#break('output')
    })
  }

  #metered({ length }: Buffer): boolean {
    const now = Date.now()
    if (now - this.#minute.began > minuteMs) this.#minute = { began: now, bytes: 0 }
    this.#minute.bytes += length
    return this.#why === undefined && this.#minute.bytes <= this.#entry.limits.outputBytesPerMinute
  }

  #break(why: Ending): void {
    if (this.#why !== undefined) return
    this.#why = why
    this.#kill()
  }

  #kill(): void {
    if (this.pid !== undefined) void killFamily(this.pid, `TMPDIR=${this.#directory}`)
  }

  /** The leader is gone; its children and its folder go too. */
  async #clear(): Promise<void> {
    this.#why ??= 'exited'
    clearTimeout(this.#lifetime)
    if (this.pid !== undefined) await killFamily(this.pid, `TMPDIR=${this.#directory}`)
    for (const stream of this.#child.stdio) stream?.destroy()
    await rm(this.#directory, { recursive: true, force: true, maxRetries: 3 }).catch(() => undefined)
    this.#handlers.onEnd(this.#why)
  }
}

function filled(text: string, { credential, ...tenancy }: Tenancy, workingDirectory: string): string {
  const values: Readonly<Record<string, string>> = { ...tenancy, workingDirectory, node: process.execPath }
  return text.replace(/\$\{(\w+)\}/g, (_, name: string) =>
    name === 'credential' ? (credential?.reveal() ?? '') : (values[name] ?? ''),
  )
}

/** What is not a message is not worth ending a process for: some print a greeting. */
function parsed(line: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined
  } catch {
    return undefined
  }
}

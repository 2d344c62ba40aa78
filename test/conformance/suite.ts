import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { createServer, request as send, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = fileURLToPath(new URL('../../conformance', import.meta.url))
const modules = join(folder, 'node_modules')
const node = join(modules, 'node-bin-linux-x64/bin/node')
const suite = join(modules, '@modelcontextprotocol/conformance/dist/index.js')
const inspector = join(modules, '@modelcontextprotocol/inspector/clients/launcher/build/index.js')

export type Revision = '2025-11-25' | '2026-07-28'
export type Checks = { passed: number; failed: number; byScenario: Map<string, string[]> }

/** Installs the suites where they are not yet, by the lock file and without anybody's scripts. */
export async function installed(): Promise<void> {
  const there = await access(suite).then(() => true, () => false) // prettier-ignore
  if (there) return
  const { code, output } = await run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], folder)
  if (code !== 0) throw new Error(`npm ci in ${folder} failed:\n${output}`)
}

async function run(command: string, args: readonly string[], cwd: string): Promise<{ code: number; output: string }> {
  const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code: code ?? 1, output }
}

/** Extensions are optional, and the platform announces none of them: to a server without one the suite says only that. */
const isExtension = (scenario: string): boolean => scenario.startsWith('tasks-')

type Check = { id: string; status: string; errorMessage?: string }

/** Runs the server scenarios that a revision requires, and counts the checks that were made. */
export async function conformance(url: string, revision: Revision): Promise<Checks> {
  const results = await mkdtemp(join(tmpdir(), 'mcp-conformance-'))
  const args = [suite, 'server', '--url', url, '--requirements', revision, '--output-dir', results]
  const { output } = await run(node, args, folder)
  const checks: Checks = { passed: 0, failed: 0, byScenario: new Map() }
  for (const name of await readdir(results, { recursive: true })) {
    if (!name.endsWith('checks.json')) continue
    const scenario = (name.split('/')[0] ?? name).replace(/^server-/, '').replace(/-\d{4}-\d\d-\d\dT.*$/, '')
    if (isExtension(scenario)) continue
    for (const { id, status, errorMessage } of JSON.parse(await readFile(join(results, name), 'utf8')) as Check[]) {
      if (status === 'SUCCESS') checks.passed++
      if (status === 'FAILURE') checks.failed++
      checks.byScenario.set(scenario, [...(checks.byScenario.get(scenario) ?? []), `${status} ${id} ${errorMessage ?? ''}`]) // prettier-ignore
    }
  }
  await rm(results, { recursive: true })
  if (checks.passed === 0) throw new Error(`The suite checked nothing:\n${output.slice(-2000)}`)
  return checks
}

/** What the official inspector answers on its command line. */
export async function inspect(url: string, authorization: string, method: string[]): Promise<unknown> {
  const header = ['--header', `Authorization: ${authorization}`]
  const { code, output } = await run(node, [inspector, '--cli', url, '--transport', 'http', ...header, '--method', ...method], folder) // prettier-ignore
  if (code !== 0) throw new Error(`The inspector failed:\n${output}`)
  return JSON.parse(output.slice(output.indexOf('{'))) as unknown
}

/** A door on loopback that puts the key on every request, since the suites can send none; all else passes as it is. */
export async function keyed(target: string, authorization: string): Promise<{ url: string; close: () => void }> {
  const { port: to, pathname } = new URL(target)
  // It stands where the platform stands, so its own address is the platform's; another site's stays another's.
  const own = /^(http:\/\/)?(?:localhost|127\.0\.0\.1):(\d+)$/
  const renamed = (value: string): string => {
    const [, scheme = '', at] = own.exec(value) ?? []
    return Number(at) === port ? `${scheme}127.0.0.1:${to}` : value
  }
  const forward: RequestListener = (request, response) => {
    const headers = { ...request.headers, authorization, host: renamed(request.headers.host ?? '') }
    if (request.headers.origin !== undefined) headers.origin = renamed(request.headers.origin)
    const onward = send({ host: '127.0.0.1', port: to, path: pathname, method: request.method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    onward.on('error', () => response.destroy())
    response.on('close', () => onward.destroy())
    request.pipe(onward)
  }
  const server = createServer(forward)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}${pathname}`,
    close: () => {
      server.close()
      server.closeAllConnections()
    },
  }
}

/**
 * The protocol's own suites, direct and through the platform: the same upstream, the same count. Then the inspector.
 * `npm run conformance`; with `--all` each failed check is named.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { start } from '../harness/process.ts'
import { settle } from './site.ts'
import { conformance, inspect, installed, keyed, type Checks, type Revision } from './suite.ts'
import { startUpstream, type Era } from './upstream.ts'

const failures = ({ byScenario }: Checks): string[] =>
  [...byScenario].flatMap(([scenario, checks]) =>
    checks.filter((check) => check.startsWith('FAILURE')).map((check) => `    ${scenario}: ${check}`),
  )

/** The platform's own address has to be known to it, or a page of its own origin would be a stranger's. */
async function freePort(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return String(port)
}

/** Checks that passed in one run and not in the other. */
function lost({ byScenario }: Checks, other: Checks): string[] {
  const passed = (checks: string[] = []) => checks.filter((check) => check.startsWith('SUCCESS'))
  return [...byScenario].flatMap(([scenario, checks]) => {
    const there = passed(other.byScenario.get(scenario))
    return passed(checks)
      .filter((check) => !there.includes(check))
      .map((check) => `    ${scenario}: ${check}`)
  })
}

await installed()
const directory = await mkdtemp(join(tmpdir(), 'mcp-conformance-data-'))
const platform = await start({
  DATA_DIR: directory,
  DEMO: 'off',
  PORT: await freePort(),
  UPSTREAM_ALLOWED_CIDRS: '127.0.0.0/8',
  LOG_LEVEL: 'warn',
})
const site = await settle(platform.address)
const runs: [Revision, Era[]][] = [
  ['2025-11-25', ['legacy', 'modern']],
  ['2026-07-28', ['legacy', 'modern']],
]
let differences = 0
try {
  for (const [revision, eras] of runs) {
    const upstream = await startUpstream(eras)
    const path = await site.add(`u${revision}`, upstream.url)
    const door = await keyed(`${platform.address}${path}`, site.authorization)
    const direct = await conformance(upstream.url, revision)
    const through = await conformance(door.url, revision)
    process.stdout.write(
      `${revision}  direct ${direct.passed} passed, ${direct.failed} failed  through ${through.passed} passed, ${through.failed} failed\n`,
    )
    if (process.argv.includes('--all') || direct.failed + through.failed > 0 || direct.passed !== through.passed)
      process.stdout.write(
        [...failures(direct), '  through:', ...failures(through), '  direct alone:', ...lost(direct, through), ''].join(
          '\n',
        ),
      )
    if (direct.passed !== through.passed || direct.failed !== through.failed) differences++
    door.close()
    await upstream.close()
  }
  const upstream = await startUpstream(['legacy', 'modern'])
  const url = `${platform.address}${await site.add('inspected', upstream.url)}`
  const listed = (await inspect(url, site.authorization, ['tools/list'])) as { tools: { name: string }[] }
  assert(listed.tools.some(({ name }) => name === 'test_simple_text'))
  const called = await inspect(url, site.authorization, ['tools/call', '--tool-name', 'test_simple_text'])
  assert.match(JSON.stringify(called), /simple text response/)
  process.stdout.write(`inspector --cli  ${listed.tools.length} tools listed, one called\n`)
  await upstream.close()
} finally {
  await platform.stop()
  await rm(directory, { recursive: true })
}
if (differences > 0) {
  process.stderr.write(`${differences} run(s) differ between direct and through\n`)
  process.exitCode = 1
}

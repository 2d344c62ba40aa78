import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { z } from 'zod'
import { advisoryFile, exceptionFile, fails, findings, installed, type Finding, type Severity } from './advisories.ts'

/*
 * Ends with 1 when a lockfile installs a version with a known vulnerability: by the advisories of security/advisories.json,
 * and by `npm audit` where the registry answers it. What is accepted stands in security/exceptions.json, with its reason and
 * its last day.
 *
 *   npm run vulnerabilities [-- --offline]
 */
const { values: options } = parseArgs({ options: { offline: { type: 'boolean', default: false } } })
const say = (text: string): void => void process.stdout.write(`${text}\n`)
const run = promisify(execFile)
const today = new Date().toISOString().slice(0, 10)
const read = async (path: string): Promise<unknown> => JSON.parse(await readFile(path, 'utf8'))

const lockfiles = ['package-lock.json', 'bench/peers/package-lock.json', 'conformance/package-lock.json']
/** What the lockfiles beside the first install never serves a caller. */
const packages = (
  await Promise.all(lockfiles.map(async (path, i) => installed(await read(path), i > 0).map((each) => ({ ...each, path: join(path, '..', each.path) }))))
).flat() // prettier-ignore

async function fromFile(): Promise<Finding[] | null> {
  const path = 'security/advisories.json'
  const parsed = advisoryFile.safeParse(await read(path).catch(() => null))
  if (!parsed.success) {
    say(`not exercised: ${path} is missing, empty or malformed`)
    return null
  }
  const { retrieved, advisories } = parsed.data
  const days = Math.floor((Date.parse(today) - Date.parse(retrieved)) / 86_400_000)
  say(`${advisories.length} advisories of ${path}, ${days} days old, against ${packages.length} packages`)
  return findings(packages, advisories)
}

const report = z.object({
  vulnerabilities: z.record(
    z.string(),
    z.object({
      severity: z.string(),
      via: z.array(z.union([z.string(), z.object({ url: z.string(), title: z.string(), severity: z.string() })])),
    }),
  ),
})

/** The findings of `npm audit` in one use; null where the registry does not answer it. */
async function fromRegistry(use: 'production' | 'development'): Promise<Finding[] | null> {
  const args = ['audit', '--json', ...(use === 'production' ? ['--omit=dev'] : [])]
  const ended = run('npm', args, { maxBuffer: 2 ** 26, timeout: 60_000 })
  const { stdout } = await ended.catch((error: { stdout?: string }) => ({ stdout: error.stdout ?? '' }))
  const parsed = report.safeParse(parseOrNull(stdout))
  if (!parsed.success) return null
  return Object.entries(parsed.data.vulnerabilities).flatMap(([name, { via }]) =>
    via.flatMap((cause) => {
      if (typeof cause === 'string') return []
      const severity = cause.severity.toUpperCase() as Severity
      const id = cause.url.slice(cause.url.lastIndexOf('/') + 1)
      return [{ name, version: '?', path: 'npm audit', use, id, severity, summary: cause.title }]
    }),
  )
}

function parseOrNull(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

const exceptions = exceptionFile.parse(await read('security/exceptions.json'))
const local = await fromFile()
const registry = options.offline ? [null] : await Promise.all([fromRegistry('production'), fromRegistry('development')])
if (registry.includes(null)) say('the registry was not asked, or gives no audit: the advisory file alone decides')
for (const { id, package: name, reason, until } of exceptions)
  say(`${until < today ? 'EXPIRED ' : 'accepted'}  ${name}: ${id} until ${until}: ${reason}`)
const failing = [...(local ?? []), ...registry.flatMap((each) => each ?? [])].filter((finding) =>
  fails(finding, exceptions, today),
)
for (const { name, version, path, use, id, severity, summary } of failing)
  say(`VULNERABLE  ${name}@${version} (${use}, ${path}): ${id} ${severity}: ${summary}`)
if (local && failing.length === 0) say('no known vulnerability at or above its threshold')
process.exitCode = local === null || failing.length > 0 ? 1 : 0

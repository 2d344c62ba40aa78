import semver from 'semver'
import { z } from 'zod'

export const severities = ['LOW', 'MODERATE', 'HIGH', 'CRITICAL'] as const
export type Severity = (typeof severities)[number]

/** The least that fails, of what runs for callers and of what only builds and tests. */
export const thresholds: Record<'production' | 'development', Severity> = {
  production: 'MODERATE',
  development: 'HIGH',
}

const event = z.object({ introduced: z.string(), fixed: z.string(), last_affected: z.string() }).partial()
const affected = z.object({
  package: z.object({ ecosystem: z.string(), name: z.string() }),
  ranges: z.array(z.object({ type: z.string(), events: z.array(event) })).default([]),
  versions: z.array(z.string()).default([]),
})

/** What the gate reads of an advisory in the Open Source Vulnerability format (ossf.github.io/osv-schema). */
const advisory = z.object({
  id: z.string().min(1),
  summary: z.string().default(''),
  withdrawn: z.string().optional(),
  affected: z.array(affected),
  // Where a database says nothing, it counts as the worst.
  database_specific: z.object({ severity: z.enum(severities).default('CRITICAL') }).prefault({}),
})
export type Advisory = z.infer<typeof advisory>

/** The advisories, and the day on which they were fetched. */
export const advisoryFile = z.object({ retrieved: z.iso.date(), advisories: z.array(advisory).min(1) })

/** A finding that is accepted for a reason, until a day. */
export const exceptionFile = z.array(
  z.strictObject({ id: z.string(), package: z.string(), reason: z.string().min(20), until: z.iso.date() }),
)
export type Exception = z.infer<typeof exceptionFile>[number]

export type Installed = { name: string; version: string; path: string; use: 'production' | 'development' }
export type Finding = Installed & { id: string; severity: Severity; summary: string }

const lockfile = z.object({
  packages: z.record(
    z.string(),
    z.object({
      version: z.string().optional(),
      name: z.string().optional(),
      dev: z.boolean().default(false),
      link: z.boolean().default(false),
    }),
  ),
})

/** What a package-lock.json installs. `tool`: a lockfile of tools alone, whatever it says of itself. */
export function installed(json: unknown, tool = false): Installed[] {
  return Object.entries(lockfile.parse(json).packages).flatMap(([path, { version, name, dev, link }]) => {
    if (path === '' || link || version === undefined) return []
    const use = dev || tool ? ('development' as const) : ('production' as const)
    return [
      { name: name ?? path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length), version, path, use },
    ]
  })
}

/** The events of a range in the order of their versions make intervals: from each introduction to the next end. */
function isWithin(version: string, events: z.infer<typeof event>[]): boolean {
  const from = (introduced: string): string => (introduced === '0' ? '0.0.0-0' : introduced)
  return events.some(({ introduced }, i) => {
    if (introduced === undefined || semver.lt(version, from(introduced))) return false
    const end = events.slice(i + 1).find(({ fixed, last_affected }) => fixed ?? last_affected)
    if (end?.fixed !== undefined) return semver.lt(version, end.fixed)
    return end?.last_affected === undefined || semver.lte(version, end.last_affected)
  })
}

export const isAffected = ({ name, version }: Pick<Installed, 'name' | 'version'>, { affected }: Advisory): boolean =>
  affected.some(
    ({ package: { ecosystem, name: theirs }, ranges, versions }) =>
      ecosystem === 'npm' &&
      theirs === name &&
      (versions.includes(version) || ranges.some(({ type, events }) => type !== 'GIT' && isWithin(version, events))),
  )

export const findings = (packages: readonly Installed[], advisories: readonly Advisory[]): Finding[] =>
  packages.flatMap((each) =>
    advisories
      .filter((advisory) => advisory.withdrawn === undefined && isAffected(each, advisory))
      .map(({ id, summary, database_specific: { severity } }) => ({ ...each, id, severity, summary })),
  )

/** Whether a finding is grave enough to fail, and nobody accepts it on that day. */
export function fails(finding: Finding, exceptions: readonly Exception[], day: string): boolean {
  if (severities.indexOf(finding.severity) < severities.indexOf(thresholds[finding.use])) return false
  return !exceptions.some(({ id, package: name, until }) => id === finding.id && name === finding.name && day <= until)
}

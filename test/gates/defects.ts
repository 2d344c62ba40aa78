/** A defect, and the gate that ought to turn red at it. */
export type Defect = {
  name: string
  file: string
  plant: (text: string) => string
  gate: 'lint' | 'format' | 'types' | 'walls' | 'rules' | 'schema' | 'vulnerabilities'
  /** What the gate must say: a red that speaks of something else has caught nothing. */
  says: RegExp
}

const addition =
  (lines: string) =>
  (text: string): string =>
    `${text}${lines}\n`

const leaf = 'src/kernel/nodeId.ts'
const field = 'src/modules/audit/schema.ts'

/** A version in the place of the one that a lockfile installs. */
const downgrade =
  (path: string, version: string) =>
  (text: string): string => {
    const lockfile = JSON.parse(text) as { packages: Record<string, { version: string }> }
    const entry = lockfile.packages[path]
    if (!entry) throw new Error(`The lockfile has no ${path}.`)
    return JSON.stringify({ ...lockfile, packages: { ...lockfile.packages, [path]: { ...entry, version } } })
  }

// Put together here, so that this file holds no secret itself.
const secret = ['ghp', 'R4nd0mL00k1ngT0k3nOfTh1rtyS1xL3tt3rs'].join('_')
const entropy = ['q7Zx2LmVb9', 'KdRt4WcYp8', 'HsJf6GnQa3', 'EuTi5XoBvM'].join('')

export const defects: Defect[] = [
  {
    name: 'a production dependency of a version with a known vulnerability',
    file: 'package-lock.json',
    plant: downgrade('node_modules/nodemailer', '10.0.4'),
    gate: 'vulnerabilities',
    says: /VULNERABLE {2}nodemailer@10\.0\.4 \(production, .*GHSA-v53p-9fqp-m79j/,
  },
  {
    name: 'a dependency of the tests of a version with a known vulnerability',
    file: 'package-lock.json',
    plant: downgrade('node_modules/koa', '3.1.1'),
    gate: 'vulnerabilities',
    says: /VULNERABLE {2}koa@3\.1\.1 \(development, .*GHSA-7gcc-r8m5-44qm/,
  },
  {
    name: 'an empty file of advisories',
    file: 'security/advisories.json',
    plant: () => '{ "retrieved": "2026-11-27", "advisories": [] }',
    gate: 'vulnerabilities',
    says: /not exercised: security\/advisories\.json/,
  },
  {
    name: 'a command made of a variable',
    file: leaf,
    plant: (text) => `import { exec } from 'node:child_process'\n${text}export const planted = (name: string) => exec('ls ' + name)\n`,
    gate: 'lint',
    says: /security\/detect-child-process/,
  },
  {
    name: 'a regular expression that backtracks without bound',
    file: leaf,
    plant: addition("export const planted = (text: string): boolean => /^(\\w+\\s?)*$/.test(text)"),
    gate: 'lint',
    says: /security\/detect-unsafe-regex/,
  },
  {
    name: 'a token of a known form in code',
    file: leaf,
    plant: addition(`export const planted = '${secret}'`),
    gate: 'lint',
    says: /no-secrets\/no-secrets.*ghp_/,
  },
  {
    name: 'a random key in code',
    file: leaf,
    plant: addition(`export const planted = '${entropy}'`),
    gate: 'lint',
    says: /no-secrets\/no-secrets.*entropy/,
  },
  {
    name: 'a finding that only warns',
    file: leaf,
    plant: addition("/* eslint no-alert: 'off', no-var: 'warn' */\nexport var planted = 1"),
    gate: 'lint',
    says: /no-var/,
  },
  {
    name: 'a comment that silences nothing',
    file: leaf,
    plant: addition('// eslint-disable-next-line no-console\nexport const planted = 1'),
    gate: 'lint',
    says: /Unused eslint-disable directive/,
  },
  {
    name: 'an unformatted file',
    file: leaf,
    plant: addition('export const planted   =   1;'),
    gate: 'format',
    says: /nodeId\.ts/,
  },
  {
    name: 'a value of the wrong type',
    file: leaf,
    plant: addition("export const planted: number = 'one'"),
    gate: 'types',
    says: /nodeId\.ts.*TS2322.*'string'.*'number'/,
  },
  {
    name: 'an import of a floor above',
    file: leaf,
    plant: addition("export { selfOrAdmin as planted } from '../modules/accounts/policy.ts'"),
    gate: 'walls',
    says: /kernel-at-the-ground: src\/kernel\/nodeId\.ts → src\/modules\/accounts\/policy\.ts/,
  },
  {
    name: 'a field without a rule',
    file: field,
    plant: addition("builder.queryField('planted', (t) => t.string({ resolve: () => '' }))"),
    gate: 'rules',
    says: /Query\.planted/,
  },
  {
    name: 'a schema that changed and was not printed',
    file: 'schema.graphql',
    plant: (text) => text.replace(/^type AuditEvent\b/m, 'type PlantedEvent'),
    gate: 'schema',
    says: /^-type PlantedEvent/m,
  },
] // prettier-ignore

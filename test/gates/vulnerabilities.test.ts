import { readFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { advisoryFile, fails, findings, installed, isAffected, type Advisory, type Finding } from './advisories.ts'

type Events = Advisory['affected'][number]['ranges'][number]['events']

const advisory = (events: Events, more: Partial<Advisory> = {}): Advisory => ({
  id: 'GHSA-test',
  summary: 'a test',
  affected: [{ package: { ecosystem: 'npm', name: 'thing' }, ranges: [{ type: 'SEMVER', events }], versions: [] }],
  database_specific: { severity: 'HIGH' },
  ...more,
})
const affects = (version: string, events: Events): boolean => isAffected({ name: 'thing', version }, advisory(events))

describe('an advisory', () => {
  it('affects the versions from its introduction to before its fix', () => {
    const events = [{ introduced: '1.2.0' }, { fixed: '1.4.1' }]
    expect(['1.1.9', '1.2.0', '1.4.0', '1.4.1', '2.0.0'].filter((version) => affects(version, events))).toEqual([
      '1.2.0',
      '1.4.0',
    ])
  })

  it('affects the last affected version, and every version where it names no end', () => {
    expect(affects('2.0.0', [{ introduced: '0' }, { last_affected: '2.0.0' }])).toBe(true)
    expect(affects('2.0.1', [{ introduced: '0' }, { last_affected: '2.0.0' }])).toBe(false)
    expect(affects('99.0.0', [{ introduced: '0' }])).toBe(true)
  })

  it('affects several intervals of one range', () => {
    const events = [{ introduced: '0' }, { fixed: '1.0.5' }, { introduced: '2.0.0' }, { fixed: '2.3.0' }]
    expect(['1.0.4', '1.9.0', '2.2.9', '2.3.0'].map((version) => affects(version, events))).toEqual([true, false, true, false]) // prettier-ignore
  })

  it('affects a prerelease of its fix, which came before it', () => {
    expect(affects('1.4.1-rc.1', [{ introduced: '0' }, { fixed: '1.4.1' }])).toBe(true)
  })

  it('affects no package of another name or ecosystem, and nothing once withdrawn', () => {
    const everything = advisory([{ introduced: '0' }])
    const thing = { name: 'thing', version: '1.0.0', path: 'node_modules/thing', use: 'production' } as const
    const elsewhere = { ...everything, affected: everything.affected.map((each) => ({ ...each, package: { ecosystem: 'PyPI', name: 'thing' } })) } // prettier-ignore
    expect(findings([thing], [everything])).toHaveLength(1)
    expect(findings([{ ...thing, name: 'other' }], [everything])).toEqual([])
    expect(findings([thing], [elsewhere, { ...everything, withdrawn: '2026-01-01T00:00:00Z' }])).toEqual([])
  })
})

describe('the lockfile', () => {
  it('is read with nested, scoped and renamed packages, and with what each is used for', () => {
    const packages = {
      '': { name: 'root', version: '1.0.0' },
      'node_modules/@a/b': { version: '1.0.0' },
      'node_modules/x/node_modules/y': { version: '2.0.0', dev: true },
      'node_modules/alias': { name: 'real', version: '3.0.0' },
      'node_modules/linked': { link: true },
    }
    expect(installed({ packages }).map(({ name, use }) => [name, use])).toEqual([
      ['@a/b', 'production'],
      ['y', 'development'],
      ['real', 'production'],
    ])
  })
})

describe('a finding', () => {
  const found = (use: Finding['use'], severity: Finding['severity']): Finding => ({ name: 'thing', version: '1.0.0', path: '', id: 'GHSA-test', summary: '', use, severity }) // prettier-ignore
  const accepted = { id: 'GHSA-test', package: 'thing', reason: 'a reason that says enough', until: '2026-06-30' }

  it('fails from moderate on in what serves callers, from high on in what builds and tests', () => {
    expect((['LOW', 'MODERATE', 'HIGH'] as const).map((severity) => fails(found('production', severity), [], '2026-06-01'))).toEqual([false, true, true]) // prettier-ignore
    expect((['LOW', 'MODERATE', 'HIGH'] as const).map((severity) => fails(found('development', severity), [], '2026-06-01'))).toEqual([false, false, true]) // prettier-ignore
  })

  it('is accepted to the last day of its exception and no longer, and for that package alone', () => {
    const finding = found('production', 'CRITICAL')
    expect(fails(finding, [accepted], '2026-06-30')).toBe(false)
    expect(fails(finding, [accepted], '2026-07-01')).toBe(true)
    expect(fails({ ...finding, name: 'other' }, [accepted], '2026-06-30')).toBe(true)
  })
})

describe('the advisory file', () => {
  it('holds advisories in the format, and an empty one is none', async () => {
    const file: unknown = JSON.parse(await readFile('security/advisories.json', 'utf8'))
    expect(advisoryFile.safeParse(file).success).toBe(true)
    expect(advisoryFile.safeParse({ retrieved: '2026-11-27', advisories: [] }).success).toBe(false)
  })

  it('counts an advisory that says no severity as the gravest', () => {
    const { advisories } = advisoryFile.parse({ retrieved: '2026-11-27', advisories: [{ id: 'X', affected: [] }] })
    expect(advisories[0]?.database_specific.severity).toBe('CRITICAL')
  })
})

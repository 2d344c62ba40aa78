import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openEmbedded } from '../../src/kernel/database/embedded.ts'
import type { Mutant } from './mutantsOfDeclarations.ts'

type Policy = {
  table: string
  name: string
  permissive: boolean
  verb: 'ALL' | 'SELECT' | 'INSERT' | 'UPDATE' | 'DELETE'
  using: string | null
  check: string | null
}

/** The parts that a condition joins by AND at its outermost. */
export function conjuncts(condition: string): string[] {
  const inner = /^\(([\s\S]*)\)$/.exec(condition.trim())?.[1]
  if (inner === undefined) return [condition]
  const parts: string[] = []
  let depth = 0
  let start = 0
  let quoted = false
  for (let i = 0; i < inner.length; i += 1) {
    if (inner[i] === "'") quoted = !quoted
    if (quoted) continue
    if (inner[i] === '(') depth += 1
    if (inner[i] === ')') depth -= 1
    // The parentheses were not those of the whole.
    if (depth < 0) return [condition]
    if (depth === 0 && inner.startsWith(' AND ', i)) {
      parts.push(inner.slice(start, i))
      start = i + 5
    }
  }
  return parts.length ? [...parts, inner.slice(start)] : [condition]
}

const readers = ['test/rls/rows.test.ts', 'test/authorization/agreement.test.ts']
const writers = ['test/rls/writes.test.ts', 'test/rls/rows.test.ts']

/** A migration that comes after all others and weakens one policy. */
const migration = (name: string, sql: string, verb: Policy['verb']): Mutant => ({
  kind: 'policy',
  name: name.replace(/\s+/g, ' '),
  file: 'prisma/migrations/9999_mutant/migration.sql',
  change: () => `${sql};\n`,
  tests: verb === 'SELECT' ? readers : verb === 'ALL' ? [...writers, ...readers] : writers,
})

function* mutantsOf({ table, name, permissive, verb, using, check }: Policy): Generator<Mutant> {
  const on = `"${name}" ON public."${table}"`
  if (!permissive) {
    yield migration(`${table}.${name} dropped`, `DROP POLICY ${on}`, verb)
    return
  }
  for (const [clause, condition] of [['USING', using], ['WITH CHECK', check]] as const) {
    if (!condition) continue
    const parts = conjuncts(condition)
    for (const dropped of parts) {
      const rest = parts.filter((part) => part !== dropped).join(' AND ') || 'true'
      yield migration(`${table}.${name} ${clause} without ${dropped}`, `ALTER POLICY ${on} ${clause} (${rest})`, verb)
    }
  }
} // prettier-ignore

/** Each policy of the application's role without one of its conditions, read from a database as the migrations leave it. */
export async function policyMutants(): Promise<Mutant[]> {
  const folder = await mkdtemp(join(tmpdir(), 'mcp-policies-'))
  const server = await openEmbedded(folder)
  try {
    const { rows } = await server.pool('mcp_system').query<Policy>(`
      SELECT tablename AS table, policyname AS name, permissive = 'PERMISSIVE' AS permissive, cmd AS verb, qual AS using, with_check AS check
      FROM pg_policies WHERE schemaname = 'public' AND (roles @> '{mcp_app}' OR roles = '{public}') ORDER BY 1, 2`)
    return rows.flatMap((policy) => [...mutantsOf(policy)])
  } finally {
    await server.close()
    await rm(folder, { recursive: true, force: true })
  }
}

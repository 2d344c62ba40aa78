import SchemaBuilder from '@pothos/core'
import { execute, parse, type ExecutionResult, type GraphQLSchema } from 'graphql'
import { builder as real } from '../src/graphql/builder.ts'
import type { GraphContext } from '../src/graphql/context.ts'
import { member } from '../src/kernel/actor.ts'
import { allOf, atLeast, scope, type Rule } from '../src/kernel/rule.ts'

// What a rule on every field costs: the same answer of 5,000 fields, from rows that lie in memory, executed by a schema with
// rules and by one without, in turns, in one process. Nothing else is measured, so the share is the largest there is.

const rows = 250
const columns = 20
const rounds = 300

type Row = Record<string, string>

/** The real builder's options and plugins; `ruled: false` leaves out the one that enforces. */
function schemaOf(ruled: boolean): GraphQLSchema {
  const plugins = real.options.plugins?.filter((name) => ruled || name !== 'rules')
  const builder = new SchemaBuilder<typeof real.$inferSchemaTypes>({ ...real.options, ...(plugins ? { plugins } : {}) })
  // Not one and the same rule, as in a real type.
  const rules: Rule[] = [scope('mcp:read'), scope('org:read'), allOf(scope('mcp:read'), atLeast('DEVELOPER'))]
  const RowType = builder.objectRef<Row>('Row').implement({
    fields: (t) =>
      Object.fromEntries(
        Array.from({ length: columns }, (_, i) => [
          `c${i}`,
          t.exposeString(`c${i}` as never, { rule: rules[i % rules.length] as Rule, nullable: false }),
        ]),
      ),
  })
  const all = Array.from({ length: rows }, (_, i) =>
    Object.fromEntries(Array.from({ length: columns }, (_unused, j) => [`c${j}`, `${i}.${j}`])),
  )
  builder.queryType({
    fields: (t) => ({ rows: t.field({ type: [RowType], rule: scope('mcp:read'), resolve: () => all }) }),
  })
  return builder.toSchema()
}

const median = (times: number[]): number => [...times].sort((a, b) => a - b)[Math.floor(times.length / 2)] ?? 0

const facts = { kind: 'user', userId: '', orgId: '', role: 'DEVELOPER', credentialId: '', mfaAt: null } as const
const origin = { ip: null, userAgent: null, requestId: 'bench' }
const actor = member({ ...facts, origin, given: ['mcp:read', 'org:read'] }, new Date())
const document = parse(`{ rows { ${Array.from({ length: columns }, (_, i) => `c${i}`).join(' ')} } }`)

const subjects = [schemaOf(false), schemaOf(true)].map((schema) => ({ schema, times: [] as number[] }))

function run(schema: GraphQLSchema): number {
  const contextValue = { actor } as unknown as GraphContext
  const started = performance.now()
  const result = execute({ schema, document, contextValue }) as ExecutionResult
  const elapsed = performance.now() - started
  if (result.errors || (result.data?.['rows'] as unknown[])?.length !== rows) throw new Error(JSON.stringify(result))
  return elapsed
}

for (let round = -50; round < rounds; round += 1)
  // Each goes first every second time.
  for (const { schema, times } of round % 2 ? subjects : [...subjects].reverse()) {
    const elapsed = run(schema)
    if (round >= 0) times.push(elapsed)
  }

const [without = 0, withRules = 0] = subjects.map(({ times }) => median(times))
const share = (withRules / without - 1) * 100
process.stdout.write(
  `${rows * columns} fields, median of ${rounds}: ${without.toFixed(2)} ms without rules, ${withRules.toFixed(2)} ms with; ${share >= 0 ? '+' : ''}${share.toFixed(1)} %\n`,
)
if (share >= 10) {
  process.stderr.write('Rules cost 10 % or more.\n')
  process.exitCode = 1
}

import { getNamedType, isInputObjectType, isNonNullType, isObjectType, type GraphQLInputType } from 'graphql'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Actor } from '../../src/kernel/actor.ts'
import type { Sql } from '../../src/kernel/database/door.ts'
import { encodeNodeId } from '../../src/kernel/nodeId.ts'
import { buildSchema } from '../../src/schema.ts'
import type { Answer, Credential } from '../harness/world.ts'
import {
  nobody, personOf, reachable, relations, rowPolicies, stricterThanDeclared, verdict, type Principal, type Relation, type Verdict,
} from './expectation.ts' // prettier-ignore
import { administratorsKey, modelOf, populate, type Population } from './population.ts'
import { declaredOn, grouped, isNode, probesOf, sample, selection, type Probe } from './probes.ts'

const schema = buildSchema()
const { probes, ofWrites } = probesOf(schema)
const groups = grouped(probes)
const mutations = Object.values(schema.getMutationType()?.getFields() ?? {})
const refusals = ['UNAUTHENTICATED', 'FORBIDDEN', 'MFA_REQUIRED']
const aliasesAtOnce = 20

let town: Population
let principals: Principal[]
/** Whose rows are meant by a relation, for each principal. */
let whose: (principal: Principal, relation: Relation) => string
const cells = { read: 0, written: 0 }
const differences: string[] = []

const inhabitant = (name: string) => town.inhabitants.get(name) ?? expect.fail(`nobody is called ${name}`)
const rowOf = (name: string, model: string): string => inhabitant(name).rows.get(model)?.[0] ?? expect.fail(`${name} has no ${model}`) // prettier-ignore
const nodeOf = (name: string, type: string): string => encodeNodeId(type, rowOf(name, modelOf(schema, type) ?? ''))

/** What arguments are given for their names. */
const valuesOf = (name: string): Record<string, unknown> => {
  const slug = `s-${rowOf(name, 'Service').slice(0, 8)}`
  return { slug, service: slug, document: '{ apiVersion }', id: nodeOf(name, 'Service'), scope: 'user:token', serviceId: nodeOf(name, 'Service') } // prettier-ignore
}

const keyOf = (name: string, credential: Credential, scopes: readonly string[]): Principal => ({ name, credential, kind: 'key', role: 'ORG_ADMIN', scopes, factor: 'none' }) // prettier-ignore

beforeAll(async () => {
  town = await populate()
  const { home, away, adminWithOldFactor, deactivated, keys, programs } = town
  const ended: Principal = { ...personOf('deactivated member', deactivated, 'none'), kind: 'ended' }
  const own = new Map<string, string>([['viewer', 'viewer'], ['developer', 'developer'], ['other organisation’s admin', 'otherAdmin'], ['deactivated member', 'deactivated']]) // prettier-ignore
  principals = [
    nobody,
    personOf('viewer', home.viewer, 'none'),
    personOf('developer', home.developer, 'none'),
    personOf('admin', home.admin, 'fresh'),
    personOf('admin with an old factor', adminWithOldFactor, 'old'),
    personOf('admin without a factor', home.adminWithoutMfa, 'none'),
    ...[...keys].map(([scope, credential]) => keyOf(`key ${scope}`, credential, [scope])),
    keyOf('key of several scopes', programs.get('an administrator') ?? {}, administratorsKey),
    personOf('other organisation’s admin', away.admin, 'fresh'),
    ended,
  ]
  whose = (principal, relation) => {
    const abroad = principal.name.startsWith('other')
    if (relation === 'own') return own.get(principal.name) ?? 'admin'
    return relation === 'colleague'
      ? abroad
        ? 'otherColleague'
        : 'colleague'
      : abroad
        ? 'colleague'
        : 'otherColleague'
  }
}, 120_000)
afterAll(async () => {
  await town.doors.close()
  await town.database.drop()
})

type Expected = Verdict | 'absent'

/** What a probe is to find, step by step from its base. */
function expectedOf(principal: Principal, relation: Relation, probe: Probe): Expected {
  const rules = probe.rules.filter((rule) => rule !== null)
  // A key's registered document is refused before it runs when the key lacks any scope of it.
  if (principal.kind === 'key' && rules.some(({ scopes }) => scopes.some((scope) => !principal.scopes.includes(scope))))
    return 'FORBIDDEN'
  const [base, ...rest] = probe.base === 'Query' ? [null, ...probe.rules] : probe.rules
  const first = base ? verdict(principal, base) : 'granted'
  if (first !== 'granted') return first
  const sees = reachable[probe.base]
  if (probe.base !== 'Query' && (relation === 'foreign' || (sees && !sees(principal, relation)))) return 'absent'
  for (const rule of rest) {
    if (!rule) continue
    const found = verdict(principal, rule)
    if (found !== 'granted') return found
    if (rule.row && !rowPolicies[rule.row.name]?.(principal, relation)) return 'FORBIDDEN'
  }
  // A field's own refusal meets what is below it; a connection that nobody opens asks for nothing.
  const above = probe.path.map(({ field }, i) => `${i ? getNamedType((probe.path[i - 1] as Probe['path'][number]).field.type).name : probe.base}.${field.name}`) // prettier-ignore
  const refusal = above.map((at) => stricterThanDeclared[at]?.(principal, relation)).find((each) => each)
  if (refusal) return refusal
  return 'granted'
}

const names = (path: readonly (string | number)[]) => path.filter((part) => typeof part === 'string')

/** What became of one field below an alias: its error or that of a field above it, or whether its parent was there. */
function observed(answer: Answer<any>, at: string[]): string {
  // A credential that ended discredits the whole answer, wherever it was noticed.
  if (!answer.data) return answer.code ?? 'nothing'
  const above = answer.errors.find(({ path }) => !path || names(path).every((part, i) => part === at[i]))
  // No row and a row of somebody else are the same, at the field that asked for it.
  if (above) return above.extensions.code === 'NOT_FOUND' && above.path?.length === 1 ? 'absent' : above.extensions.code
  let parents: unknown[] = [answer.data]
  for (const part of at.slice(0, -1)) {
    parents = parents.flat().flatMap((parent) => (parent ? [(parent as Record<string, unknown>)[part]] : []))
    if (parents.every((parent) => parent === null || parent === undefined)) return 'absent'
  }
  return 'granted'
}

type Segment = { text: string; cells: { probe: Probe; at: string[] }[]; aliases: number; alone?: boolean }

/** A group's document part: all fields below one alias, or each below its own where a refusal would empty the others. */
function segments(group: [Probe, ...Probe[]], apart: boolean, id: string, values: Record<string, unknown>): Segment[] {
  const sets = apart ? group.map((probe): [Probe] => [probe]) : [group]
  return sets.map((set, i) => {
    const [{ base, path }] = set
    const inner = selection(set, values)
    // What is refused at the root and cannot be null empties the whole answer.
    if (base === 'Query') return { text: inner, cells: set.map((probe) => ({ probe, at: [...path.map(({ field }) => field.name), probe.field.name] })), aliases: 0, alone: apart } // prettier-ignore
    const alias = `${base}_${group[0].field.name}_${i}`
    return {
      text: `${alias}: node(id: ${id}) { ... on ${base} { ${inner} } }`,
      cells: set.map((probe) => ({ probe, at: [alias, ...path.map(({ field }) => field.name), probe.field.name] })),
      aliases: 1,
    }
  })
}

/** Upstream and absent parents further down say nothing about rights; everything else is to be as declared. */
function compare(
  principal: Principal,
  relation: Relation,
  answer: Answer<any>,
  { probe, at }: Segment['cells'][number],
) {
  // prettier-ignore
  cells.read += 1
  const expected = expectedOf(principal, relation, probe)
  const found = observed(answer, at)
  const reached = found === 'granted' || !refusals.includes(found)
  const known = probe.base === 'Query' || reachable[probe.base] !== undefined || relation === 'foreign'
  const fits =
    expected === 'granted'
      ? reached && (found !== 'absent' || at.length > 2 || (probe.base === 'Query' && at.length > 1) || !known)
      : found === expected
  if (!fits) differences.push(`${principal.name} · ${relation} · ${probe.type}.${probe.field.name}: expected ${expected}, found ${found}`) // prettier-ignore
}

async function readAll(principal: Principal, relation: Relation): Promise<void> {
  const name = whose(principal, relation)
  const values = valuesOf(name)
  const wanted = groups.filter(([probe]) => probe.base !== 'Query' || relation === 'own')
  const parts = wanted.flatMap((group) => {
    const [first] = group
    const apart = !['granted', 'absent'].includes(expectedOf(principal, relation, first)) && principal.kind !== 'ended'
    const id = first.base === 'Query' ? '' : JSON.stringify(nodeOf(name, first.base))
    return segments(group, apart, id, values)
  })
  while (parts.length) {
    const batch: Segment[] = []
    // One root field a document for reads without an alias, so that no two of them meet under one name.
    let aliases = 0
    const roots = new Set<string>()
    for (let i = 0; i < parts.length;) {
      const part = parts[i] as Segment
      const root = part.aliases ? null : part.cells.map(({ at }) => at[0])
      if (
        (batch.length && (part.alone || batch[0]?.alone)) ||
        aliases + part.aliases > aliasesAtOnce ||
        root?.some((each) => roots.has(each ?? ''))
      )
        i += 1
      else {
        aliases += part.aliases
        for (const each of root ?? []) roots.add(each ?? '')
        batch.push(...parts.splice(i, 1))
      }
    }
    const answer = await town.doors.guarded.post({ query: `{ ${batch.map(({ text }) => text).join('\n')} }` }, principal.credential) // prettier-ignore
    for (const cell of batch.flatMap((part) => part.cells)) compare(principal, relation, answer, cell)
  }
}

/** Registers documents as an administrator; answers with the id of each. */
async function register(documents: string[]): Promise<string[]> {
  const ids: string[] = []
  for (let i = 0; i < documents.length; i += 100) {
    const answer = await town.doors.guarded.post(
      { query: 'mutation ($input: RegisterPersistedOperationsInput!) { registerPersistedOperations(input: $input) { operations { sha256 } } }',
        variables: { input: { operations: documents.slice(i, i + 100).map((document) => ({ document })) } } },
      town.home.admin,
    ) // prettier-ignore
    expect(answer.errors).toEqual([])
    ids.push(...answer.data.registerPersistedOperations.operations.map(({ sha256 }: { sha256: string }) => sha256))
  }
  return ids
}

type ForKeys = { text: string; bases: string[]; cells: Segment['cells'] }

/**
 * Every field in documents for keys. A key that lacks any scope of a document is refused as a whole, so those that need the
 * same scopes share one; rows by their ids stand apart from root fields, which are asked once.
 */
function documentsForKeys(): ForKeys[] {
  const values = valuesOf('admin')
  const open = new Map<string, { parts: (Segment & { base: string })[]; roots: Set<string> }[]>()
  for (const group of groups)
    for (const part of segments(group, false, '$id', values)) {
      const { base } = group[0]
      const needed = new Set(part.cells.flatMap(({ probe }) => probe.rules.flatMap((rule) => rule?.scopes ?? [])))
      const key = JSON.stringify([base === 'Query', [...needed].sort()])
      const roots = base === 'Query' ? part.cells.map(({ at }) => at[0] ?? '') : []
      const sets = open.get(key) ?? []
      open.set(key, sets)
      const fits = sets.find((set) => set.parts.length < 8 && !roots.some((root) => set.roots.has(root)))
      const set = fits ?? { parts: [], roots: new Set<string>() }
      if (!fits) sets.push(set)
      set.parts.push({ ...part, base })
      for (const root of roots) set.roots.add(root)
    }
  return [...open.values()].flat().map(({ parts }) => {
    const bases = parts.flatMap(({ base }) => (base === 'Query' ? [] : [base]))
    const texts = parts.map(({ text }, n) => text.replaceAll('$id', `$i${n}`))
    const head = bases.length ? `query (${bases.map((_base, n) => `$i${n}: ID!`).join(', ')})` : 'query'
    return { text: `${head} { ${texts.join('\n')} }`, bases, cells: parts.flatMap((part) => part.cells) }
  })
}

describe('the matrix', () => {
  it('knows every row policy, and whose rows each type of node is', () => {
    const policies = new Set(probes.flatMap(({ rules }) => rules.flatMap((rule) => rule?.row?.name ?? [])))
    expect([...policies].filter((name) => !rowPolicies[name])).toEqual([])
    const nodes = Object.values(schema.getTypeMap()).filter((type) => isObjectType(type) && isNode(type))
    expect(nodes.map(({ name }) => name).filter((name) => !reachable[name])).toEqual([])
  })

  it('holds for every field, to everybody with a session and to strangers, on own, colleague’s and foreign rows', async () => {
    for (const principal of principals.filter(({ kind }) => kind !== 'key'))
      for (const relation of relations) await readAll(principal, relation)
    expect(differences.splice(0)).toEqual([])
  }, 60_000)

  it('holds for every field, to a key with each single scope, through registered operations', async () => {
    const documents = documentsForKeys()
    const ids = await register(documents.map(({ text }) => text))
    for (const principal of principals.filter(({ kind }) => kind === 'key'))
      for (const relation of relations)
        for (const [i, { bases, cells }] of documents.entries()) {
          if (bases.length === 0 && relation !== 'own') continue
          const variables = Object.fromEntries(bases.map((base, n) => [`i${n}`, nodeOf(whose(principal, relation), base)])) // prettier-ignore
          const answer = await town.doors.guarded.post({ documentId: ids[i], variables }, principal.credential)
          for (const cell of cells) compare(principal, relation, answer, cell)
        }
    expect(differences.splice(0)).toEqual([])
  }, 60_000)

  it('holds for every mutation: what is refused changes nothing, and what is permitted is not refused', async () => {
    const rehearsal = rehearse()
    const ids = await register(mutations.map(documentOf))
    for (const [i, mutation] of mutations.entries()) {
      const rule = declaredOn(mutation) ?? expect.fail(`${mutation.name} has no rule`)
      const before = await census()
      for (const principal of principals)
        for (const relation of namesRows(mutation) ? relations : (['own'] as const)) {
          const stricter = stricterThanDeclared[`Mutation.${mutation.name}`]?.(principal, relation)
          // Who may do what anybody may is not asked who they are.
          const declared = rule.public ? 'granted' : verdict(principal, rule)
          const expected = declared === 'granted' && stricter ? stricter : declared
          const input = inputOf(mutation, whose(principal, relation))
          const question = principal.kind === 'key' ? { documentId: ids[i] } : { query: documentOf(mutation) }
          rehearsal.on = expected === 'granted'
          rehearsal.undone = false
          const answer = await town.doors.guarded.post({ ...question, variables: input ? { input } : {} }, principal.credential) // prettier-ignore
          rehearsal.on = false
          cells.written += 1 + payloadCells(mutation)
          const found = answer.code ?? 'done'
          const answered = (answer.data?.[mutation.name] ?? null) !== null
          // Input is parsed before a statement asks whether the credential stands; either way nothing is done.
          const fits =
            expected === 'granted' ? !refusals.includes(found) && (found !== 'INTERNAL_SERVER_ERROR' || rehearsal.undone)
            : principal.kind === 'ended' ? [...refusals, 'BAD_USER_INPUT'].includes(found)
            : found === expected || (stricter && found === 'BAD_USER_INPUT') // prettier-ignore
          if (!fits || (expected !== 'granted' && answered)) differences.push(`${principal.name} · ${relation} · ${mutation.name}: expected ${expected}, found ${found}`) // prettier-ignore
        }
      if ((await census()) !== before)
        differences.push(`${mutation.name}: something changed for somebody who was refused`)
    }
    expect(differences.splice(0)).toEqual([])
  }, 120_000)

  it('has more than three thousand cells', () => {
    const total = cells.read + cells.written
    process.stdout.write(`authorization matrix: ${total} cells (${cells.read} of fields, ${cells.written} of mutations and what they answer)\n`) // prettier-ignore
    expect(total).toBeGreaterThan(3000)
    expect(ofWrites.length).toBeGreaterThan(0)
  })
})

type Mutation = (typeof mutations)[number]

const documentOf = ({ name, type, args }: Mutation): string => {
  const input = args.find((argument) => argument.name === 'input')
  const head = input ? ` ($input: ${String(input.type)})` : ''
  return `mutation${head} { ${name}${input ? '(input: $input)' : ''}${isObjectType(getNamedType(type)) ? ' { __typename }' : ''} }` // prettier-ignore
}

const payloadCells = ({ type }: Mutation): number => {
  const payload = getNamedType(type)
  return isObjectType(payload) && ofWrites.includes(payload) ? Object.keys(payload.getFields()).length : 0
}

const idFields = (type: GraphQLInputType): string[] => {
  const named = getNamedType(type)
  if (!isInputObjectType(named)) return []
  return Object.values(named.getFields()).flatMap((field) =>
    /id$/i.test(field.name) && isNonNullType(field.type) ? [field.name] : idFields(field.type),
  )
}
const namesRows = ({ args }: Mutation): boolean => args.some(({ type }) => idFields(type).length > 0)

/** The type of node that a mutation is about, by its name: `revokeApiKey` is about an ApiKey. */
const subjectOf = (name: string): string => {
  const nodes = Object.values(schema.getTypeMap()).filter((type) => isObjectType(type) && isNode(type))
  const said = name.replace('Member', 'Membership')
  return nodes.map((node) => node.name).filter((node) => said.toLowerCase().includes(node.toLowerCase())).sort((a, b) => b.length - a.length)[0] ?? 'Service' // prettier-ignore
}

function inputOf({ name, args }: Mutation, owner: string): unknown {
  const input = args.find((argument) => argument.name === 'input')
  const id = nodeOf(owner, subjectOf(name))
  return input && sample(input.type, 'input', { ...valuesOf(owner), id, userId: nodeOf(owner, 'User'), keyId: nodeOf(owner, 'ApiKey'), endpoint: 'https://upstream.example/mcp', issuer: 'https://issuer.example', state: 's'.repeat(43), email: 'somebody@example.com' }) // prettier-ignore
}

/** While it is on, work runs to its end and is undone instead of committed. */
function rehearse(): { on: boolean; undone: boolean } {
  const state = { on: false, undone: false }
  const { database } = town.doors.guarded.platform
  const transact = database.transact.bind(database)
  database.transact = (actor, work) =>
    transact(actor, async (tx) => {
      const result = await work(tx)
      if (!state.on) return result
      state.undone = true
      throw new Error('undone')
    })
  const statement = database.statement.bind(database)
  database.statement = <Row>(actor: Actor, text: Sql): Promise<Row[]> =>
    state.on && /\bINSERT\b/.test(text.text)
      ? database.transact(actor, (tx) => tx.$executeRawUnsafe(text.text, ...text.values).then(() => []))
      : statement<Row>(actor, text)
  return state
}

/** How many rows each table holds; what is refused may be written down in the audit trail and counted, and nowhere else. */
async function census(): Promise<string> {
  const [row] = await town.doors.sql(`
    SELECT string_agg(c.relname || ' ' || (xpath('/row/n/text()', query_to_xml('SELECT count(*) AS n FROM public.' || quote_ident(c.relname), false, true, '')))[1]::text, ', ' ORDER BY c.relname) AS census
    FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname NOT IN ('audit_events', 'audit_heads', 'throttle_counters')`) // prettier-ignore
  return String(row?.['census'])
}

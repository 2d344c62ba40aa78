import { createHash, randomUUID } from 'node:crypto'
import * as fc from 'fast-check'
import { getNamedType, isEnumType, isNonNullType, isObjectType, isScalarType } from 'graphql'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { authenticate } from '../../src/edge/authenticate.ts'
import { getDatamodel } from '../../src/generated/pothos.ts'
import { isMember, type Actor } from '../../src/kernel/actor.ts'
import { encodeNodeId } from '../../src/kernel/nodeId.ts'
import { buildSchema } from '../../src/schema.ts'
import type { Answer, Credential } from '../harness/world.ts'
import type { Door } from './doors.ts'
import { modelOf, populate, type Population } from './population.ts'
import { isNode } from './probes.ts'
import { oneOf, randomQuery, type Known } from './randomQueries.ts'

/** How many random questions are asked, several by each document: `npm run agreement` asks thousands, or as many as AGREEMENT_QUESTIONS says. */
const questions = Number(process.env['AGREEMENT_QUESTIONS'] ?? 100)
const aDocument = 10

const schema = buildSchema()
/** Every table, with a column that tells its rows apart. */
const keys = Object.entries(getDatamodel().datamodel.models as unknown as Record<string, { fields: { name: string }[] }>)
  .map(([model, { fields }]) => [model, fields.some(({ name }) => name === 'id') ? 'id' : String(fields[0]?.name)] as const) // prettier-ignore
/**
 * An administrator's filter lets in the accounts that colleagues connected, which row level security refuses: said exactly it
 * would need an OR, and Prisma would no longer join the look-ups of a list into one statement. No query leads there.
 */
const widerFilter = 'OauthConnection'
let town: Population
let known: Known
type Asker = { name: string; orgId: string; userId: string; credential: Credential; isKey: boolean }
let askers: Asker[]

beforeAll(async () => {
  town = await populate()
  const { home, away, programs, inhabitants } = town
  const person = (name: string, { authorization, orgId, userId }: typeof home.admin): Asker => ({ name, orgId, userId, credential: { authorization }, isKey: false }) // prettier-ignore
  askers = [
    person('a viewer', home.viewer),
    person('a developer', home.developer),
    person('an administrator', home.admin),
    person('an administrator with an old second factor', town.adminWithOldFactor),
    person('an administrator without a second factor', home.adminWithoutMfa),
    person('another organisation’s administrator', away.admin),
    person('another organisation’s viewer', away.viewer),
    ...[...programs].map(([name, credential]): Asker => ({ name: `a key of ${name}`, orgId: home.id, userId: home.admin.userId, credential, isKey: true })), // prettier-ignore
    { name: 'nobody', orgId: home.id, userId: home.admin.userId, credential: {}, isKey: false },
  ]
  const everybody = ['admin', 'developer', 'viewer', 'otherAdmin', 'otherViewer'].flatMap((name) => inhabitants.get(name) ?? []) // prettier-ignore
  const ids = new Map<string, string[]>()
  for (const type of Object.values(schema.getTypeMap()).filter(isObjectType)) {
    const model = modelOf(schema, type.name)
    if (model) ids.set(type.name, [...new Set(everybody.flatMap(({ rows }) => rows.get(model) ?? []))])
  }
  const slugs = everybody.flatMap(({ rows }) => (rows.get('Service') ?? []).map((id) => `s-${id.slice(0, 8)}`))
  known = { ids, slugs, userIds: everybody.map(({ person: { userId } }) => userId) }
}, 120_000)
afterAll(async () => {
  await town.doors.close()
  await town.database.drop()
})

/** Rows and refusals of an answer, without what belongs to the request itself; errors are in no order of their own. */
const seen = ({ data, errors }: Answer<any>): string =>
  JSON.stringify([data ?? null, errors.map(({ path, extensions: { code, requires } }) => JSON.stringify([path, code, requires])).sort()]) // prettier-ignore

/** A key's document is put where registered ones are, with nothing that it would be refused for as a whole. */
async function register({ orgId, userId }: Asker, document: string): Promise<string> {
  const sha256 = createHash('sha256').update(document).digest('hex')
  await town.doors.sql(
    `INSERT INTO persisted_operations (id, org_id, user_id, sha256, kind, document, required_scopes, cost)
     VALUES ($1, $2, $3, $4, 'query', $5, '{}', 1) ON CONFLICT DO NOTHING`,
    [randomUUID(), orgId, userId, sha256, document],
  )
  return sha256
}

/** Where the answers of two locks begin to differ. */
function difference(one: string, other: string): string {
  let at = 0
  while (one[at] === other[at]) at += 1
  return `…${one.slice(Math.max(0, at - 150), at + 150)}…\nis not\n…${other.slice(Math.max(0, at - 150), at + 150)}…`
}

/** Asks both locks together, then each alone; answers with what all of them said. */
async function agreed(asker: Asker, parts: string[]): Promise<string> {
  const query = `{ ${parts.map((part, i) => (part.startsWith('node') || parts.length > 1 ? `q${i}: ${part}` : part)).join('\n')} }` // prettier-ignore
  const body = asker.isKey ? { documentId: await register(asker, query) } : { query }
  const ask = async (door: Door) => seen(await door.post(body, asker.credential))
  const { guarded, unfiltered, asOwner } = town.doors
  const both = await ask(guarded)
  for (const [lock, door] of [
    ['row level security', unfiltered],
    ['ownership filters', asOwner],
  ] as const) {
    const alone = await ask(door)
    if (alone !== both) expect.fail(`${asker.name}, by ${lock} alone:\n${query}\n${difference(alone, both)}`)
  }
  return both
}

const isLeaf = (type: unknown): boolean => isScalarType(type) || isEnumType(type)

describe('ownership filters and row level security', () => {
  it('are both off where the test says so: a row of others is shown then, and only then', async () => {
    const foreign = town.inhabitants.get('otherAdmin')?.rows.get('Service')?.[0] ?? expect.fail('there is no such row')
    const query = `{ node(id: "${encodeNodeId('Service', foreign)}") { id } }`
    const shown = async (door: Door): Promise<boolean> => Boolean((await door.post({ query }, town.home.viewer)).data?.node) // prettier-ignore
    const { guarded, unfiltered, asOwner, bare } = town.doors
    expect([await shown(guarded), await shown(unfiltered), await shown(asOwner), await shown(bare)]).toEqual([false, false, false, true]) // prettier-ignore
  })

  it('each alone show exactly what both show: every row of everybody by its id, and every list', async () => {
    const nodes = Object.values(schema.getTypeMap())
      .filter((type) => isObjectType(type))
      .filter(isNode)
    const rows = nodes.flatMap((type) => {
      const leaves = Object.values(type.getFields()).filter((field) => isLeaf(getNamedType(field.type)) && !field.args.length) // prettier-ignore
      return (known.ids.get(type.name) ?? []).map((id) => `node(id: "${encodeNodeId(type.name, id)}") { ... on ${type.name} { ${leaves.map(({ name }) => name).join(' ')} } }`) // prettier-ignore
    })
    expect(rows.length).toBeGreaterThan(50)
    const lists = Object.values(schema.getQueryType()?.getFields() ?? {}).filter(({ args }) => args.some(({ name }) => name === 'first')).map(({ name }) => `${name}(first: 100) { edges { node { id } } }`) // prettier-ignore
    expect(lists.length).toBeGreaterThan(5)
    for (const asker of askers) {
      const parts = asker.credential.authorization ? [...rows, ...lists] : [...rows.slice(0, 10), ...lists]
      while (parts.length) await agreed(asker, parts.splice(0, 20))
    }
  }, 60_000)

  it('each alone show the same rows of every table, asked without any condition', async () => {
    const { guarded, unfiltered, asOwner } = town.doors
    type Delegate = { findMany(args: object): Promise<Record<string, string>[]> }
    /** A table that the application may not read at all shows no rows. */
    const rowsOf = ({ platform: { database } }: Door, actor: Actor, model: string, key: string): Promise<string[]> =>
      database
        .read(actor, (tx) => (tx as unknown as Record<string, Delegate>)[`${model[0]?.toLowerCase()}${model.slice(1)}`]!.findMany({ select: { [key]: true } })) // prettier-ignore
        .then((rows) => rows.map((row) => String(row[key])).sort(), (error: unknown) => (/permission denied/.test(String((error as Error).message)) ? [] : Promise.reject(error as Error))) // prettier-ignore
    const colleagues = async (actor: Actor): Promise<string[]> =>
      isMember(actor) ? (await town.doors.sql('SELECT id::text FROM oauth_connections WHERE org_id = $1', [actor.orgId])).map(({ id }) => String(id)) : [] // prettier-ignore
    let shown = 0
    for (const { name, credential } of askers) {
      const origin = { ip: '192.0.2.1', userAgent: null, requestId: 'agreement' }
      const actor = await authenticate(guarded.platform, new Headers(credential), origin)
      for (const [model, key] of keys) {
        const [both, rls, filters] = [await rowsOf(guarded, actor, model, key), await rowsOf(unfiltered, actor, model, key), await rowsOf(asOwner, actor, model, key)] // prettier-ignore
        expect(rls, `${name}, ${model}, by row level security alone`).toEqual(both)
        const wider = model === widerFilter && actor.scopes.includes('mcp:admin')
        const own = wider ? [...new Set([...both, ...(await colleagues(actor))])].sort() : both
        expect(filters, `${name}, ${model}, by ownership filters alone`).toEqual(own)
        shown += both.length
      }
    }
    expect(shown).toBeGreaterThan(100)
  })

  it('are not what rules rest on: without both, what is refused stays refused, and nothing of it is shown', async () => {
    const fields = Object.values(schema.getQueryType()?.getFields() ?? {})
    const asked = fields.filter(({ args }) => !args.some((argument) => isNonNullType(argument.type)))
    const query = `{ ${asked.map(({ name, args, type }) => `${name}${args.some((argument) => argument.name === 'first') ? '(first: 5)' : ''}${isObjectType(getNamedType(type)) ? ' { __typename }' : ''}`).join(' ')} }` // prettier-ignore
    const refused = ({ data, errors }: Answer<any>): string[] =>
      errors.filter(({ path, extensions: { code } }) => code !== 'NOT_FOUND' && path && !data?.[String(path[0])]).map(({ path, extensions: { code } }) => `${String(path?.[0])} ${code}`).sort() // prettier-ignore
    let refusals = 0
    for (const { name, credential } of askers.filter(({ isKey }) => !isKey)) {
      const [guarded, bare] = [await town.doors.guarded.post({ query }, credential), await town.doors.bare.post({ query }, credential)] // prettier-ignore
      expect(refused(bare), name).toEqual(refused(guarded))
      refusals += refused(bare).length
    }
    expect(refusals).toBeGreaterThan(3)
  })

  it('agree on random questions of random people', async () => {
    let asked = 0
    let withRows = 0
    const property = fc.asyncProperty(fc.gen(), async (g) => {
      const asker = oneOf(g, askers) ?? expect.fail('nobody asks')
      const parts = Array.from({ length: aDocument }, () => randomQuery(g, schema, known))
      const answer = await agreed(asker, parts)
      asked += parts.length
      withRows += answer.includes('"__typename"') ? 1 : 0
    })
    await fc.assert(property, { numRuns: Math.ceil(questions / aDocument), endOnFailure: true })
    process.stdout.write(`agreement: ${asked} random questions, ${withRows} documents with rows, 0 differences\n`)
    expect(asked).toBeGreaterThanOrEqual(questions)
    expect(withRows).toBeGreaterThan(asked / aDocument / 4 - 1)
  }, 3_600_000)
})

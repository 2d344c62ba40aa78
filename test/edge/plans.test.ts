import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { personOf, seed } from '../../bench/database.ts'
import { member, type Member } from '../../src/kernel/actor.ts'
import { openEmbedded } from '../../src/kernel/database/embedded.ts'
import { scopesOf } from '../../src/kernel/permissions.ts'
import { issueAccessToken } from '../../src/modules/sessions/tokens.ts'
import { createDatabase, type TestDatabase } from '../harness/database.ts'
import { createWorld, type World } from '../harness/world.ts'

/** Every list of the API, asked for pages of `$n`, and the statements that one page takes, whatever its size. */
const lists: [name: string, document: string, statements: number][] = [
  ['services', 'services(first: $n) { edges { node { id slug endpoint version } } }', 1],
  ['services with the caller’s tokens', 'services(first: $n) { edges { node { slug token { hint } } } }', 2],
  ['requestLog', 'requestLog(first: $n) { edges { node { id service tool status durationMs } } }', 1],
  ['requestLog of one user', 'requestLog(first: $n, userId: "USER") { edges { node { id tool } } }', 1],
  ['usage', 'usage(first: $n) { edges { node { day service tool calls } } }', 1],
  ['auditTrail', 'auditTrail(first: $n) { edges { node { id action sequence hash } } }', 1],
  ['apiKeys with owners', 'apiKeys(first: $n) { edges { node { id name owner { id name } replacedBy } } }', 1],
  ['persistedOperations', 'persistedOperations(first: $n) { edges { node { id sha256 name } } }', 1],
  ['members with users', 'organization { members(first: $n) { edges { node { role user { id name email } } } } }', 1],
  ['services of the organisation', 'organization { services(first: $n) { edges { node { slug name } } } }', 1],
  ['sessions', 'viewer { sessions(first: $n) { edges { node { id } } } }', 1],
]

type Plan = { 'Node Type': string; 'Relation Name'?: string; 'Index Cond'?: string; 'Recheck Cond'?: string; Plans?: Plan[] } // prettier-ignore
const scansOf = (plan: Plan): Plan[] => [
  ...(plan['Relation Name'] ? [plan] : []),
  ...(plan.Plans ?? []).flatMap((each) => scansOf(each)),
]

describe('each list of the API', () => {
  let database: TestDatabase
  let world: World
  let actor: Member
  let as: { authorization: string }
  beforeAll(async () => {
    database = await createDatabase()
    const scale = { organizations: 40, eventsPerOrganization: 100 }
    if (database.ownerUrl) {
      const owner = new pg.Client({ connectionString: database.ownerUrl })
      await owner.connect()
      await seed(owner, scale).finally(() => owner.end())
    } else {
      const engine = await openEmbedded(String(database.settings['DATA_DIR']))
      const client = await engine.pool('mcp_system').connect()
      await seed(client, scale).finally(() => client.release())
      await engine.close()
    }
    world = await createWorld({ DATABASE_POOL_SIZE: '1' }, { database })
    const { orgId, userId, sessionId } = personOf(7, 1)
    const now = world.platform.clock()
    const session = { id: sessionId, userId, orgId, expiresAt: new Date(now.getTime() + 3_600_000), mfaAt: null }
    const given = scopesOf('ORG_ADMIN')
    const { accessToken } = await issueAccessToken(world.platform, session, { role: 'ORG_ADMIN', scopes: given }, now)
    as = { authorization: `Bearer ${accessToken}` }
    const facts = {
      kind: 'user',
      userId,
      orgId,
      role: 'ORG_ADMIN',
      credentialId: sessionId,
      mfaAt: null,
      given,
    } as const
    actor = member({ ...facts, origin: { ip: null, userAgent: null, requestId: 'plans' } }, now)
    // Some rows for the lists that the seed leaves empty.
    const make = 'mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret } }'
    for (let i = 0; i < 3; i += 1) await world.graphql(make, { input: { name: `k${i}`, scopes: ['mcp:read'] } }, as)
  })
  afterAll(async () => {
    await world.close()
    await database.drop()
  })

  const ask = async (body: string, n: number) => {
    world.statements.length = 0
    const document = `query ($n: Int!) { ${body.replace('USER', actor.userId)} }`
    const { errors, extensions } = await world.graphql(document, { n }, as)
    expect(errors).toEqual([])
    return extensions.statements
  }

  it.each(lists)('takes the same statements for one row as for a hundred: %s', async (_name, body, statements) => {
    expect([await ask(body, 1), await ask(body, 100)]).toEqual([statements, statements])
  })

  /** The plan of a statement as the caller, for any values of its parameters. */
  const explain = (text: string): Promise<Plan> =>
    world.platform.database.transact(actor, async (tx) => {
      const parameters = Math.max(0, ...[...text.matchAll(/\$(\d+)/g)].map(([, n]) => Number(n)))
      await tx.$executeRawUnsafe('SET LOCAL plan_cache_mode = force_generic_plan')
      // A table of a few pages is read whole by choice; what is asked here is whether an index leads to the rows.
      await tx.$executeRawUnsafe('SET LOCAL enable_seqscan = off')
      await tx.$executeRawUnsafe(`PREPARE asked AS ${text}`)
      const values = parameters ? `(${Array<string>(parameters).fill('NULL').join(', ')})` : ''
      const [row] = await tx.$queryRawUnsafe<{ 'QUERY PLAN': { Plan: Plan }[] }[]>(`EXPLAIN (FORMAT JSON) EXECUTE asked${values}`) // prettier-ignore
      await tx.$executeRawUnsafe('DEALLOCATE asked')
      const [explained] = row?.['QUERY PLAN'] ?? []
      if (!explained) throw new Error('no plan')
      return explained.Plan
    })

  it.each(lists)(
    'is led by an index to rows of its own organisation, so that other tenants cost it nothing: %s',
    async (_name, body) => {
      await ask(body, 20)
      // The times of last use are written beside the requests, now and then.
      const asked = world.statements.filter((text) => !/^\s*UPDATE/i.test(text))
      expect(asked.length).toBeGreaterThan(0)
      for (const text of asked) {
        const scans = scansOf(await explain(text))
        expect(scans.length).toBeGreaterThan(0)
        const whole = scans.filter((scan) => !scan['Index Cond'] && !scan['Recheck Cond'])
        expect(whole.map((scan) => `${scan['Node Type']} of ${scan['Relation Name']}`)).toEqual([])
      }
    },
  )
})

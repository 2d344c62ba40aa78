import { randomInt } from 'node:crypto'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { anonymous, system, type Actor } from '../../../src/kernel/actor.ts'
import type { Tx } from '../../../src/kernel/database/door.ts'
import { Lease } from '../../../src/kernel/database/lease.ts'
import { createWorld, type World } from '../../harness/world.ts'
import { createSide, whoAmI, type Side } from './members.ts'

let world: World
let a: Side
let b: Side
beforeAll(async () => {
  world = await createWorld({ DATABASE_POOL_SIZE: '3' })
  a = await createSide(world, 'alpha')
  b = await createSide(world, 'beta')
})
afterAll(() => world.close())

describe('statements of two requests that are sent in the same tick', () => {
  /** Each asks for the service with an id and answers with its slug, or what stands for none. */
  const methods: Record<string, (tx: Tx, id: string) => Promise<unknown>> = {
    findUnique: async (tx, id) => (await tx.service.findUnique({ where: { id } }))?.slug ?? null,
    'findUnique with a relation': async (tx, id) =>
      (await tx.service.findUnique({ where: { id }, select: { slug: true, organization: true } }))?.slug ?? null,
    'findUnique of a relation alone': async (tx, id) =>
      (await tx.service.findUnique({ where: { id }, select: { organization: { select: { slug: true } } } }))?.organization.slug ?? null, // prettier-ignore
    findUniqueOrThrow: async (tx, id) => (await tx.service.findUniqueOrThrow({ where: { id } }).catch(() => null))?.slug ?? null, // prettier-ignore
    findFirst: async (tx, id) => (await tx.service.findFirst({ where: { id } }))?.slug ?? null,
    findFirstOrThrow: (tx, id) => tx.service.findFirstOrThrow({ where: { id } }).then((s) => s.slug, () => null), // prettier-ignore
    findMany: async (tx, id) => (await tx.service.findMany({ where: { id } }))[0]?.slug ?? null,
    'findMany by a cursor': async (tx, id) => (await tx.service.findMany({ cursor: { id } }))[0]?.slug ?? null,
    count: async (tx, id) => ((await tx.service.count({ where: { id } })) ? id : null),
    aggregate: async (tx, id) => (await tx.service.aggregate({ where: { id }, _max: { slug: true } }))._max.slug,
    groupBy: async (tx, id) => (await tx.service.groupBy({ by: ['slug'], where: { id } }))[0]?.slug ?? null,
    $queryRaw: async (tx, id) => (await tx.$queryRaw<{ slug: string }[]>`SELECT slug FROM services WHERE id = ${id}::uuid`)[0]?.slug ?? null, // prettier-ignore
    $queryRawUnsafe: async (tx, id) => (await tx.$queryRawUnsafe<{ slug: string }[]>('SELECT slug FROM services WHERE id = $1::uuid', id))[0]?.slug ?? null, // prettier-ignore
    $executeRaw: async (tx, id) => ((await tx.$executeRaw`SELECT FROM services WHERE id = ${id}::uuid`) ? id : null),
  }
  it.each(Object.keys(methods))('each run under their own identity: %s', async (name) => {
    const ask = methods[name] as (typeof methods)[string]
    const [ofA, ofB] = [world.platform.database.openReader(a.actor), world.platform.database.openReader(b.actor)]
    const both = [ofA, ofB, ofA, ofB].map(({ tx }) => [ask(tx, a.serviceId), ask(tx, b.serviceId)])
    const answers = await Promise.all(both.map((pair) => Promise.all(pair)))
    await Promise.all([ofA.close(), ofB.close()])
    const [seenByA, seenByB] = answers
    expect(seenByA?.[0], 'A sees its own').toBeTruthy()
    expect(seenByA?.[1], 'A does not see B’s').toBeNull()
    expect(seenByB?.[0], 'B does not see A’s').toBeNull()
    expect(seenByB?.[1], 'B sees its own').toBeTruthy()
    expect(answers.slice(2)).toEqual([seenByA, seenByB])
  })

  it('each run under their own identity when GraphQL loads the rows, its own loader and conflicting aliases included', async () => {
    const document = `query ($own: ID!, $foreign: ID!) {
      own: node(id: $own) { id ... on Service { slug name } } foreign: node(id: $foreign) { id ... on Service { slug name } }
      viewer { name organization { slug one: services(first: 1) { edges { node { slug } } } two: services(first: 2) { edges { node { slug endpoint } } }
        members(first: 10) { edges { node { user { email } } } } } user { id email } } organization { slug } }`
    const touch = `mutation ($input: UpdateServiceInput!) { updateService(input: $input) { slug name } }`
    const ask = async (side: Side, other: Side) => {
      const as = side.organization.admin
      const [read, written] = await Promise.all([
        world.graphql<any>(document, { own: side.nodeId, foreign: other.nodeId }, as),
        world.graphql<any>(touch, { input: { id: side.nodeId, name: `${side.slug} renamed` } }, as),
      ])
      expect(read.errors.map(({ path, extensions }) => [path, extensions.code])).toEqual([[['foreign'], 'NOT_FOUND']])
      const { own, foreign, viewer, organization } = read.data
      const emails = viewer.organization.members.edges.map((edge: any) => edge.node.user.email)
      return [own.slug, foreign, viewer.user.email, organization.slug, viewer.organization.one.edges.length, viewer.organization.two.edges[0].node.slug, emails.includes(as.email), emails.includes(other.organization.admin.email), written.data.updateService?.slug] // prettier-ignore
    }
    const expected = ({ slug, organization: o }: Side) => [
      slug,
      null,
      o.admin.email,
      o.slug,
      1,
      slug,
      true,
      false,
      slug,
    ]
    const order = Array.from({ length: 16 }, (_, i) => (i % 2 ? ([a, b] as const) : ([b, a] as const)))
    const answers = await Promise.all(order.map(([side, other]) => ask(side, other)))
    expect(answers).toEqual(order.map(([side]) => expected(side)))
  })
})

describe('a unit of work', () => {
  it.each(['read', 'transact'] as const)(
    'answers every statement of a tick (%s), though one before them finds nothing',
    async (mode) => {
      const settled = await world.platform.database[mode](a.actor, (tx) => {
        const absent = () => tx.service.findFirstOrThrow({ where: { id: b.serviceId } })
        return Promise.allSettled([absent(), tx.service.count(), absent(), whoAmI(tx), tx.service.findUnique({ where: { id: a.serviceId } })]) // prettier-ignore
      })
      const values = settled.map((each) =>
        each.status === 'fulfilled' ? each.value : (each.reason as { code: string }).code,
      )
      expect(values).toEqual(['P2025', 1, 'P2025', a.actor.userId, expect.objectContaining({ slug: 'alpha' })])
    },
  )

  it('is refused before it has an identity, with a made-up one, a second one, and after its end', async () => {
    const refusing = new Lease(() => {
      throw new Error('Unknown unit of work.')
    })
    const send = (text: string) => refusing.query({ text, values: ['made-up'] })
    await expect(send('SELECT * FROM users')).rejects.toThrow('without an identity')
    await expect(send('SELECT app.bind($1)')).rejects.toThrow('Unknown unit of work')
    await expect(send('SELECT 1')).rejects.toThrow('without an identity')
    const { database } = world.platform
    const twice = database.read(a.actor, (tx) => tx.$executeRaw`SELECT app.bind(${'made-up'})`)
    await expect(twice).rejects.toThrow(/bound once/)
    const reader = database.openReader(a.actor)
    await reader.close()
    await expect(whoAmI(reader.tx)).rejects.toThrow()
    refusing.release()
    await expect(send('SELECT 1')).rejects.toThrow('over')
  })

  it('is one transaction, though its first statements come in one tick', async () => {
    const { database } = world.platform
    for (let i = 0; i < 5; i += 1) {
      const transactions = await database.transact(a.actor, (tx) => {
        const current = () =>
          tx.$queryRaw<{ id: string }[]>`SELECT pg_current_xact_id()::text AS id, pg_sleep(0.001)::text`
        return Promise.all([
          current(),
          tx.service.findUnique({ where: { id: a.serviceId } }),
          tx.service.count(),
          current(),
        ])
      })
      const [first, service, count, last] = transactions
      expect([service?.slug, count, first[0]?.id]).toEqual(['alpha', 1, last[0]?.id])
    }
  })

  it('fails alone when the server ends its connection, and the next one works', async () => {
    const { ownerUrl } = world.database
    // The embedded database has no connection that anybody could end.
    if (!ownerUrl) return
    const owner = new pg.Client({ connectionString: ownerUrl })
    await owner.connect()
    const cut = world.platform.database.transact(a.actor, async (tx) => {
      const [row] = await tx.$queryRaw<{ pid: number }[]>`SELECT pg_backend_pid() AS pid`
      await owner.query('SELECT pg_terminate_backend($1)', [row?.pid])
      // Until the end has come through, while no statement of this work is under way.
      for (let i = 0; i < 20; i += 1) await owner.query('SELECT 1')
      return whoAmI(tx)
    })
    await expect(cut).rejects.toThrow()
    await owner.end()
    expect(await world.platform.database.transact(a.actor, whoAmI)).toBe(a.actor.userId)
  })

  it('keeps nothing of work that throws, and all of work that ends', async () => {
    const { database } = world.platform
    const rename = (tx: Tx, name: string) => tx.service.update({ where: { id: a.serviceId }, data: { name }, select: { id: true } }) // prettier-ignore
    const name = () => database.read(a.actor, async (tx) => (await tx.service.findFirstOrThrow({ where: { id: a.serviceId } })).name) // prettier-ignore
    await database.transact(a.actor, (tx) => rename(tx, 'kept'))
    const failing = database.transact(a.actor, async (tx) => {
      await rename(tx, 'lost')
      throw new Error('changed my mind')
    })
    await expect(failing).rejects.toThrow('changed my mind')
    expect(await name()).toBe('kept')
  })

  it('reports a commit that PostgreSQL turned into a rollback, and gives its connection back', async () => {
    const { database } = world.platform
    for (let i = 0; i < 5; i += 1) {
      const swallowed = database.transact(a.actor, async (tx) => {
        await tx.service.update({ where: { id: a.serviceId }, data: { name: 'lost' }, select: { id: true } })
        await tx.$queryRaw`SELECT 1 / 0`.catch(() => {})
      })
      await expect(swallowed).rejects.toThrow(/rolled back/)
    }
    const { name } = await database.read(a.actor, (tx) => tx.service.findFirstOrThrow({ where: { id: a.serviceId } }))
    expect(name).not.toBe('lost')
    expect(await database.transact(b.actor, whoAmI)).toBe(b.actor.userId)
  })
})

describe('an identity', () => {
  const cast = (): [Actor, string | null][] => [
    [a.actor, a.actor.userId],
    [b.actor, b.actor.userId],
    [anonymous(), null],
    [system(), null],
  ]
  const boom = new Error('midway')
  type Step = (actor: Actor, uid: string | null) => Promise<unknown>
  const steps: Step[] = [
    (actor) => world.platform.database.read(actor, whoAmI),
    (actor) => world.platform.database.transact(actor, whoAmI),
    async (actor, uid) => {
      // A statement that fails between two that work.
      const reader = world.platform.database.openReader(actor)
      const before = await whoAmI(reader.tx)
      await reader.tx.$queryRaw`SELECT 1 / 0`.catch(() => {})
      const after = await whoAmI(reader.tx)
      await reader.close()
      return before === after ? after : `${before} became ${after}, not ${uid}`
    },
    async (actor, uid) => {
      const work = world.platform.database.transact(actor, async (tx) => {
        if ((await whoAmI(tx)) !== uid) return
        throw boom
      })
      return work.then(() => 'somebody else', (error: unknown) => (error === boom ? uid : error)) // prettier-ignore
    },
    async (actor, uid) => {
      // One whose credential does not stand leaves nothing behind either.
      const ghost = 'userId' in actor ? { ...actor, credentialId: a.serviceId } : null
      if (!ghost) return uid
      return world.platform.database.read(ghost, whoAmI).then((seen) => `a ghost as ${seen}`, () => uid) // prettier-ignore
    },
  ]

  it('never outlives its statement: 2,000 requests of four actors over three connections, some failing midway', async () => {
    const all = cast()
    let started = 0
    let leaks = 0
    const client = async (): Promise<void> => {
      while (started < 2000) {
        started += 1
        const [actor, uid] = all[randomInt(all.length)] as [Actor, string | null]
        const step = steps[randomInt(steps.length)] as Step
        const seen = await step(actor, uid)
        if (seen !== uid) leaks += 1
      }
    }
    await Promise.all(Array.from({ length: 12 }, client))
    expect({ started, leaks }).toEqual({ started: 2000, leaks: 0 })
  })

  it('of a stranger is no identity: no row of any table', async () => {
    const seen = await world.platform.database.read(anonymous(), (tx) => Promise.all([tx.service.findMany(), tx.membership.findMany(), tx.organization.findMany()])) // prettier-ignore
    expect(seen.flat()).toEqual([])
  })
})

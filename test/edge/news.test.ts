import { buildSchema, parse } from 'graphql'
import { expect, it } from 'vitest'
import { news } from '../../src/edge/news.ts'
import type { GraphContext } from '../../src/graphql/context.ts'
import { member, stepUpWindowSeconds } from '../../src/kernel/actor.ts'
import { scopes } from '../../src/kernel/permissions.ts'
import { holds, stepUp } from '../../src/kernel/rule.ts'
import { fresh, seedOrganization } from '../harness/seed.ts'
import { createWorld } from '../harness/world.ts'

it('executes each item as the caller of that moment: a second factor grows old while a subscription runs', async () => {
  let ahead = 0
  const world = await createWorld({}, { clock: () => new Date(Date.now() + ahead) })
  const { admin } = await seedOrganization(world)
  const { authorization } = await fresh(world, admin)
  const claims = JSON.parse(Buffer.from(authorization.split('.')[1] ?? '', 'base64url').toString()) as { sid: string; mfa_at: number } // prettier-ignore
  const origin = { ip: null, userAgent: null, requestId: 'news' }
  const facts = { kind: 'user', userId: admin.userId, orgId: admin.orgId, role: admin.role, credentialId: claims.sid, origin } as const // prettier-ignore
  const actor = member({ ...facts, mfaAt: new Date(claims.mfa_at * 1000), given: scopes }, world.platform.clock())
  const source = async function* () {
    yield { steppedUp: (_args: unknown, { actor }: GraphContext) => holds(actor, stepUp) }
    ahead = stepUpWindowSeconds * 1000
    yield { steppedUp: (_args: unknown, { actor }: GraphContext) => holds(actor, stepUp) }
  }
  const schema = buildSchema('type Query { none: Int } type Subscription { steppedUp: Boolean! }')
  const subscription = schema.getSubscriptionType()?.getFields()['steppedUp'] ?? expect.fail('no field')
  subscription.subscribe = source
  const call = { schema, document: parse('subscription { steppedUp }') }
  const stream = await news(world.platform, actor, call, new AbortController().signal)
  const items: unknown[] = []
  if (Symbol.asyncIterator in stream) for await (const { data } of stream) items.push(data?.['steppedUp'])
  expect(items).toEqual([true, false])
  await world.close()
})

import { z } from 'zod'
import { AppError } from '../../kernel/errors.ts'
import { nodeId } from '../../kernel/nodeId.ts'
import { operation } from '../../kernel/operation.ts'
import { allOf, scope, stepUp } from '../../kernel/rule.ts'
import { actingMember, slug } from './operations.ts'

const maxTools = 500

/** Publishes a collection, or puts other tools in the place of those that it had. It permits nobody anything: it narrows. */
export const publishCollection = operation({
  name: 'publishCollection',
  requires: allOf(scope('mcp:admin'), stepUp),
  input: z.strictObject({
    slug: slug.describe('Its part of `/mcp/{organization}/collections/{collection}`. One that exists is replaced.'),
    name: z.string().trim().min(1).max(100),
    description: z.string().trim().max(2000).optional(),
    tools: z
      .array(z.strictObject({ serviceId: nodeId('Service'), tool: z.string().min(1).max(200) }))
      .min(1)
      .max(maxTools),
  }),
  run: async ({ tx, actor, now }, { slug: named, name, description = '', tools }) => {
    const { orgId } = actingMember(actor)
    const wanted = new Map(tools.map((each) => [JSON.stringify([each.serviceId, each.tool]), each]))
    const serviceIds = [...new Set(tools.map(({ serviceId }) => serviceId))]
    const known = await tx.service.findMany({ where: { orgId, id: { in: serviceIds } }, select: { id: true } })
    if (known.length !== serviceIds.length) throw new AppError('NOT_FOUND', 'No such service.')
    const { id } = await tx.collection.upsert({
      where: { orgId_slug: { orgId, slug: named } },
      create: { orgId, slug: named, name, description, createdAt: now },
      update: { name, description },
      select: { id: true },
    })
    await tx.collectionTool.deleteMany({ where: { orgId, collectionId: id } })
    await tx.collectionTool.createMany({
      data: [...wanted.values()].map((each) => ({ orgId, collectionId: id, ...each })),
    })
    return { id, count: wanted.size }
  },
  audit: ({ id, count }, { slug: named }) => ({
    action: 'collection.published',
    target: id,
    detail: { slug: named, tools: count },
  }),
})

export const withdrawCollection = operation({
  name: 'withdrawCollection',
  requires: allOf(scope('mcp:admin'), stepUp),
  input: z.strictObject({ id: nodeId('Collection') }),
  target: {
    noun: 'collection',
    find: (tx, { id }, { actor }) =>
      tx.collection.findFirst({ where: { id, orgId: actingMember(actor).orgId }, select: { id: true } }),
  },
  run: ({ tx }, { id }) => tx.collection.delete({ where: { id }, select: { id: true, slug: true } }),
  audit: ({ id, slug: named }) => ({ action: 'collection.withdrawn', target: id, detail: { slug: named } }),
})

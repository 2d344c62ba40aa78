import { anonymous, type Member } from '../../../src/kernel/actor.ts'
import type { Reader } from '../../../src/kernel/database/door.ts'
import { memberOfToken } from '../../../src/modules/sessions/tokens.ts'
import { createService, seedOrganization, type Organization } from '../../harness/seed.ts'
import type { World } from '../../harness/world.ts'

/** An organisation with one service, and its administrator as the actor that the database door takes. */
export type Side = { organization: Organization; actor: Member; serviceId: string; nodeId: string; slug: string }

export async function createSide(world: World, slug: string): Promise<Side> {
  const organization = await seedOrganization(world)
  const nodeId = await createService(world, organization.admin, { slug, endpoint: `https://${slug}.example/mcp` })
  const token = organization.admin.authorization.replace('Bearer ', '')
  const actor = await memberOfToken(world.platform, token, anonymous().origin)
  const serviceId = Buffer.from(nodeId, 'base64url').toString().split(':')[1] ?? ''
  return { organization, actor, serviceId, nodeId, slug }
}

export const whoAmI = async (tx: Reader['tx']): Promise<string | null> =>
  (await tx.$queryRaw<{ uid: string | null }[]>`SELECT auth.uid()::text AS uid`)[0]?.uid ?? null

import type { Member } from '../../kernel/actor.ts'
import { boundedCache } from '../../kernel/boundedCache.ts'
import { resource, type Platform } from '../../kernel/platform.ts'

// A slug never changes, so it is looked up once an organisation; whether the caller is still in it is asked at every statement.
const slugs = resource(() => boundedCache<string>(10_000))

/** The slug of the organisation that a member acts in. */
export async function organizationSlugOf(platform: Platform, actor: Member): Promise<string | null> {
  const known = slugs(platform).get(actor.orgId)
  if (known) return known
  const row = await platform.database.read(actor, (tx) =>
    tx.organization.findFirst({ where: { id: actor.orgId }, select: { slug: true } }),
  )
  if (row) slugs(platform).set(actor.orgId, row.slug)
  return row?.slug ?? null
}

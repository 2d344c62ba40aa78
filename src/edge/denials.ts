import type { GraphContext } from '../graphql/context.ts'
import { isMember } from '../kernel/actor.ts'
import { boundedCache } from '../kernel/boundedCache.ts'
import { recordDenial } from '../kernel/operation.ts'
import { resource } from '../kernel/platform.ts'

// A list of a hundred people is one refusal, and so is a page that asks again every second: the trail says it once a minute.
const said = resource(() => boundedCache<true>(10_000, 60_000))

/** Writes down the sensitive fields that a request was refused, each with the rule that decided. */
export async function recordDenials({ actor, platform, denials }: GraphContext): Promise<void> {
  if (!denials.size || !isMember(actor)) return
  const known = said(platform)
  for (const [coordinate, error] of denials) {
    const key = `${actor.credentialId} ${coordinate}`
    if (known.has(key)) continue
    known.set(key, true)
    await recordDenial({ actor, platform, now: platform.clock() }, 'field', error, coordinate)
  }
}

import { z } from 'zod'
import { badInput } from '../../kernel/errors.ts'
import { operation } from '../../kernel/operation.ts'
import type { Platform } from '../../kernel/platform.ts'
import { allOf, scope, stepUp } from '../../kernel/rule.ts'
import { actingMember, credentialModes, slug } from './operations.ts'

export type Offer = { name: string; title: string; description: string; needsCredential: boolean }

/** What the operator's catalogue offers, without a word of how it is run. */
export const offers = ({ config }: Platform): Offer[] =>
  Object.entries(config.catalogue?.services ?? {}).map(([name, { title, description, needsCredential }]) => ({
    name,
    title,
    description,
    needsCredential,
  }))

/** Takes a service of the catalogue into the organisation, by its name there: commands come from the operator alone. */
export const enableHostedService = operation({
  name: 'enableHostedService',
  requires: allOf(scope('mcp:admin'), stepUp),
  input: z.strictObject({
    hosted: slug.describe('Its name in the catalogue.'),
    slug: slug.optional().describe('Its part of `/mcp/{organization}/{service}`. Default: its name in the catalogue.'),
    credentialMode: credentialModes
      .optional()
      .describe('Default: PERSONAL where it needs a credential, NONE elsewhere.'),
  }),
  run: ({ tx, actor, platform, now }, { hosted, slug: ownSlug, credentialMode }) => {
    const offer = offers(platform).find(({ name }) => name === hosted)
    if (!offer) throw badInput([{ path: ['hosted'], message: 'the catalogue has no such service' }])
    const mode = credentialMode ?? (offer.needsCredential ? 'PERSONAL' : 'NONE')
    if (offer.needsCredential !== (mode !== 'NONE'))
      throw badInput([
        { path: ['credentialMode'], message: offer.needsCredential ? 'it needs a credential' : 'it takes none' },
      ])
    return tx.service.create({
      data: {
        orgId: actingMember(actor).orgId,
        slug: ownSlug ?? hosted,
        name: offer.title,
        description: offer.description,
        endpoint: `hosted:${hosted}`,
        hosted,
        credentialMode: mode,
        createdAt: now,
      },
      select: { id: true },
    })
  },
  audit: ({ id }, { hosted }) => ({ action: 'service.hosted', target: id, detail: { hosted } }),
})

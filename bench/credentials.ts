import { openPlatform } from '../src/compose.ts'
import { loadConfig } from '../src/config.ts'
import { provideSchema } from '../src/graphql/registry.ts'
import { member } from '../src/kernel/actor.ts'
import { createLog } from '../src/kernel/log.ts'
import { closeResources } from '../src/kernel/platform.ts'
import { scopesOf } from '../src/kernel/permissions.ts'
import { createApiKey } from '../src/modules/apiKeys/operations.ts'
import { registerPersistedOperation, sha256Of } from '../src/modules/persisted/operations.ts'
import { issueAccessToken } from '../src/modules/sessions/tokens.ts'
import { buildSchema } from '../src/schema.ts'
import { personOf } from './database.ts'

export type Caller = { token: string; key: string }

/**
 * One caller for each of the first organisations: an access token of a developer's session, an API key of the same
 * person, and the document registered in the organisation.
 */
export async function makeCallers(
  settings: Record<string, string>,
  organizations: number,
  document: string,
): Promise<{ callers: Caller[]; documentId: string }> {
  const config = loadConfig({ ...settings, LOG_LEVEL: 'error', BCRYPT_COST: '10' })
  const platform = await openPlatform(config, createLog(config))
  provideSchema(platform, buildSchema())
  const callers: Caller[] = []
  try {
    const now = platform.clock()
    const given = scopesOf('DEVELOPER')
    const make = async (organization: number): Promise<Caller> => {
      const { orgId, userId, sessionId } = personOf(organization)
      const session = { id: sessionId, userId, orgId, expiresAt: new Date(now.getTime() + 86_400_000), mfaAt: null }
      const { accessToken } = await issueAccessToken(platform, session, { role: 'DEVELOPER', scopes: given }, now)
      const facts = {
        kind: 'user',
        userId,
        orgId,
        role: 'DEVELOPER',
        credentialId: sessionId,
        mfaAt: null,
        given,
      } as const
      const actor = member({ ...facts, origin: { ip: null, userAgent: null, requestId: 'bench' } }, now)
      await registerPersistedOperation.run({ actor, platform }, { document })
      const { secret } = await createApiKey.run({ actor, platform }, { name: 'bench', scopes: given })
      return { token: accessToken, key: secret.reveal() }
    }
    callers.push(...(await Promise.all(Array.from({ length: organizations }, (_, i) => make(i + 1)))))
  } finally {
    await closeResources(platform)
    await platform.outbound.close()
    await platform.database.close()
  }
  return { callers, documentId: sha256Of(document) }
}

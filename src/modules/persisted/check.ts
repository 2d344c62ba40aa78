import { z } from 'zod'
import { analyseDocument } from '../../graphql/registry.ts'
import type { Analysis } from '../../graphql/analysis.ts'
import { AppError } from '../../kernel/errors.ts'
import { operation } from '../../kernel/operation.ts'
import type { Platform } from '../../kernel/platform.ts'
import { platformOnly } from '../../kernel/rule.ts'

type Stored = {
  id: string
  orgId: string
  name: string | null
  version: number
  document: string
  requiredScopes: string[]
  cost: number
  stepUp: boolean
  records: string[]
}

/** What became of one registered operation under the schema of this build. */
export type Verdict = Pick<Stored, 'id' | 'orgId' | 'name' | 'version'> & {
  /** Why it no longer runs; null where it does. */
  broken: string | null
  /** Scopes that it did not need before: keys without them are refused from now on. */
  newScopes: string[]
}

const facts = ({ scopes, cost, stepUp, records }: Analysis) => ({ requiredScopes: scopes, cost, stepUp, records })

function judge(platform: Platform, stored: Stored): { verdict: Verdict; after: ReturnType<typeof facts> | null } {
  const { id, orgId, name, version } = stored
  try {
    const after = facts(analyseDocument(platform, stored.document))
    const newScopes = after.requiredScopes.filter((scope) => !stored.requiredScopes.includes(scope))
    return { verdict: { id, orgId, name, version, broken: null, newScopes }, after }
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    return { verdict: { id, orgId, name, version, broken: error.message, newScopes: [] }, after: null }
  }
}

const select = { id: true, orgId: true, name: true, version: true, document: true, requiredScopes: true, cost: true, stepUp: true, records: true } as const // prettier-ignore

/**
 * Reads every registered operation again under the schema of this build. What it needs and costs is stored anew where that
 * changed; what would no longer run is named and left as it is. `mcp-platform operations check` fails on either.
 */
export const checkPersistedOperations = operation({
  name: 'checkPersistedOperations',
  requires: platformOnly,
  input: z.strictObject({ store: z.boolean() }),
  run: async ({ tx, platform }, { store }) => {
    const verdicts: Verdict[] = []
    for (const stored of await tx.persistedOperation.findMany({ select, orderBy: { id: 'asc' } })) {
      const { verdict, after } = judge(platform, stored)
      verdicts.push(verdict)
      const { requiredScopes, cost, stepUp, records } = stored
      if (store && after && JSON.stringify(after) !== JSON.stringify({ requiredScopes, cost, stepUp, records }))
        await tx.persistedOperation.updateMany({ where: { id: stored.id }, data: after })
    }
    return verdicts
  },
  audit: (verdicts) => ({
    action: 'persistedOperation.checked',
    detail: { count: verdicts.length, broken: verdicts.filter(({ broken }) => broken !== null).length },
  }),
})

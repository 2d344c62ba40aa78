import { z } from 'zod'
import { isMember, system, type Member } from '../../kernel/actor.ts'
import { AppError } from '../../kernel/errors.ts'
import { nodeId } from '../../kernel/nodeId.ts'
import { operation, procedure, type Call } from '../../kernel/operation.ts'
import { scope } from '../../kernel/rule.ts'
import { Secret } from '../../kernel/secret.ts'
import { actingMember, endpoint } from '../services/operations.ts'
import { opened, sealSecret } from './clients.ts'
import { administersConnections, completeConnection } from './complete.ts'
import { beginConnection } from './connect.ts'
import { revokeToken } from './grants.ts'
import { openToken } from './tokens.ts'

/** A person with a session: what is begun in one browser is ended in it, and a program has none. */
function person(call: Call): Member {
  const actor = actingMember(call.actor)
  if (actor.kind !== 'user')
    throw new AppError('FORBIDDEN', 'An account is connected by a person in a session, not by an API key.')
  return actor
}

const serviceInput = z.strictObject({ serviceId: nodeId('Service') })

export const connectService = procedure({
  name: 'connectService',
  requires: scope('user:token'),
  input: serviceInput,
  perform: (call, { serviceId }) => beginConnection(call, person(call), serviceId, 'own'),
})

export const connectSharedService = procedure({
  name: 'connectSharedService',
  requires: administersConnections,
  input: serviceInput,
  perform: (call, { serviceId }) => beginConnection(call, person(call), serviceId, 'shared'),
})

const text = (max: number) => z.string().min(1).max(max)

export const completeServiceConnection = procedure({
  name: 'completeServiceConnection',
  requires: scope('user:token'),
  input: z.strictObject({
    serviceId: nodeId('Service').describe('The last part of the path that the browser came back to.'),
    state: z.string().regex(/^[\w-]{43}$/, 'expected a state that this API gave'),
    code: text(4096).optional(),
    iss: text(2000).optional(),
    error: text(200).optional(),
  }),
  perform: (call, { serviceId, ...answer }) => completeConnection(call, person(call), serviceId, answer),
})

const connection = {
  id: true,
  serviceId: true,
  orgId: true,
  userId: true,
  issuer: true,
  tokenEndpoint: true,
  revocationEndpoint: true,
  sealedAccess: true,
  sealedRefresh: true,
  client: { select: { id: true, source: true, issuer: true, clientId: true, authMethod: true, sealedSecret: true } },
} as const

/** What is about to be forgotten, with its tokens, so that they can be revoked once it is. */
const sealedConnection = ({ platform, actor }: Call, serviceId: string, shared: boolean) => {
  const { orgId, userId } = actingMember(actor)
  return platform.database.read(system(actor.origin), (tx) =>
    tx.oauthConnection.findFirst({ where: { serviceId, orgId, userId: shared ? null : userId }, select: connection }),
  )
}
type Sealed = Awaited<ReturnType<typeof sealedConnection>>

/** Best effort: the connection is forgotten whether or not its server hears of it. */
async function revoke({ platform, actor }: Call, found: Sealed): Promise<void> {
  if (!found) return
  const { orgId, serviceId, userId, sealedAccess, sealedRefresh } = found
  const of = { orgId, serviceId, owner: userId ?? 'shared' }
  const client = opened(platform, orgId, serviceId, found.client)
  const tokens = [['refresh', sealedRefresh], ['access', sealedAccess]] as const // prettier-ignore
  for (const [kind, sealed] of tokens) {
    if (sealed === null) continue
    await revokeToken(platform, client, found, `${kind}_token`, openToken(platform.vault, of, kind, sealed)).catch(
      (err: unknown) =>
        platform.log.warn({ err, kind, requestId: actor.origin.requestId }, 'a token could not be revoked upstream'),
    )
  }
}

/** Forgetting a connection: the row as the caller, under their row level security, and then the tokens at their server. */
const disconnection = (name: string, shared: boolean, requires: ReturnType<typeof scope>) =>
  operation({
    name,
    requires,
    input: serviceInput,
    prepare: (call, { serviceId }): Promise<Sealed> =>
      isMember(call.actor) ? sealedConnection(call, serviceId, shared) : Promise.resolve(null),
    target: {
      noun: 'connection',
      find: (tx, { serviceId }, { actor }) =>
        tx.oauthConnection.findFirst({
          where: { serviceId, orgId: actingMember(actor).orgId, userId: shared ? null : actingMember(actor).userId },
          select: { id: true, serviceId: true },
        }),
    },
    run: async ({ tx, row, prepared, afterCommit, ...call }) => {
      await tx.oauthConnection.deleteMany({ where: { id: row?.id ?? '' } })
      afterCommit(() => revoke(call, prepared))
      return { id: row?.serviceId ?? '' }
    },
    audit: ({ id }) => ({ action: 'serviceConnection.removed', target: id, detail: { shared } }),
  })

export const disconnectService = disconnection('disconnectService', false, scope('user:token'))
export const disconnectSharedService = disconnection('disconnectSharedService', true, administersConnections)

const clientSecret = z
  .string()
  .regex(/^[\x21-\x7e]{1,1024}$/, 'expected printable characters without spaces')
  .transform((given) => new Secret(given))
const serviceTarget = {
  noun: 'service',
  find: (
    tx: Parameters<Parameters<Call['platform']['database']['read']>[1]>[0],
    { serviceId }: { serviceId: string },
  ) => tx.service.findFirst({ where: { id: serviceId }, select: { id: true } }),
}

export const setOAuthClient = operation({
  name: 'setOAuthClient',
  requires: administersConnections,
  input: z.strictObject({
    serviceId: nodeId('Service'),
    issuer: endpoint.describe('The authorization server that the client is registered with; no other ever sees it.'),
    clientId: z.string().regex(/^[\x20-\x7e]{1,500}$/, 'expected 1 to 500 printable characters'),
    clientSecret: clientSecret.optional().describe('It is sealed and never shown again. None for a public client.'),
    authMethod: z
      .string()
      .regex(/^client_secret_(basic|post)$/, 'expected client_secret_basic or client_secret_post')
      .optional()
      .describe('How the secret is sent to the token endpoint. Default: client_secret_basic.'),
  }),
  target: serviceTarget,
  run: async ({ tx, actor, platform, now }, { serviceId, issuer, clientId, clientSecret: secret, authMethod }) => {
    const { orgId } = actingMember(actor)
    const where = { serviceId, orgId, source: 'REGISTERED' as const }
    const sealedSecret = secret ? sealSecret(platform, orgId, serviceId, issuer, secret) : null
    const values = { sealedSecret, authMethod: secret ? (authMethod ?? 'client_secret_basic') : 'none' }
    const same = await tx.oauthClient.updateMany({ where: { ...where, issuer, clientId }, data: values })
    // Another client: what was connected through the old one cannot be renewed by the new, and goes with it.
    if (same.count === 0) {
      await tx.oauthClient.deleteMany({ where })
      await tx.oauthClient.createMany({ data: [{ ...where, ...values, issuer, clientId, createdAt: now }] })
    }
    return { id: serviceId }
  },
  audit: ({ id }, { issuer, clientId }) => ({ action: 'oauthClient.set', target: id, detail: { issuer, clientId } }),
})

export const removeOAuthClient = operation({
  name: 'removeOAuthClient',
  requires: administersConnections,
  input: serviceInput,
  target: {
    noun: 'client',
    find: (tx, { serviceId }) =>
      tx.oauthClient.findFirst({ where: { serviceId, source: 'REGISTERED' }, select: { id: true, serviceId: true } }),
  },
  run: async ({ tx, row }) => {
    await tx.oauthClient.deleteMany({ where: { id: row?.id ?? '' } })
    return { id: row?.serviceId ?? '' }
  },
  audit: ({ id }) => ({ action: 'oauthClient.removed', target: id }),
})

import { system, type Member } from '../../kernel/actor.ts'
import { appendAudit } from '../../kernel/audit.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError, notFound } from '../../kernel/errors.ts'
import type { Call } from '../../kernel/operation.ts'
import { allOf, denial, holds, scope, stepUp } from '../../kernel/rule.ts'
import { Secret } from '../../kernel/secret.ts'
import { opened, type OauthClient } from './clients.ts'
import { assertTakes, questionBinding, questionShape, serviceOf, stateHash } from './connect.ts'
import { exchangeCode, type AuthorizationAnswer, type Tokens } from './grants.ts'
import { sealTokens } from './tokens.ts'

export const administersConnections = allOf(scope('mcp:admin'), stepUp)

const question = {
  orgId: true,
  shared: true,
  sealed: true,
  client: { select: { id: true, source: true, issuer: true, clientId: true, authMethod: true, sealedSecret: true } },
} as const

type Asked = { shared: boolean; client: OauthClient; question: ReturnType<typeof questionShape.parse> }

const neverBegun = (): AppError => notFound('connection that was begun')

/**
 * Takes the one question that this very user, in this very session, asked about this service. Anybody else's, an old or an
 * answered one is not there. It is used up in the same moment, whatever comes of the answer.
 */
async function takeQuestion(call: Call, actor: Member, serviceId: string, state: string): Promise<Asked> {
  const { platform, now } = call
  const hash = stateHash(state)
  const where = {
    stateHash: hash,
    orgId: actor.orgId,
    userId: actor.userId,
    sessionId: actor.credentialId,
    serviceId,
    usedAt: null,
    expiresAt: { gt: now },
  }
  const row = await platform.database.transact(system(actor.origin), async (tx) => {
    const found = await tx.oauthAuthorization.findFirst({ where, select: question })
    if (!found) return null
    // Asked before it is used up, so that whoever must step up first can answer afterwards.
    if (found.shared && !holds(actor, administersConnections)) throw denial(actor, administersConnections)
    const { count } = await tx.oauthAuthorization.updateMany({ where, data: { usedAt: now } })
    return count === 1 ? found : null
  })
  if (!row) throw neverBegun()
  const text = platform.vault.open('serviceToken', questionBinding(actor, serviceId, hash), row.sealed).reveal()
  return {
    shared: row.shared,
    client: opened(platform, actor.orgId, serviceId, row.client),
    question: questionShape.parse(JSON.parse(text)),
  }
}

/** Ends what `beginConnection` began: the answer is checked, its code becomes tokens, and those are sealed to their owner. */
export async function completeConnection(
  call: Call,
  actor: Member,
  serviceId: string,
  answer: AuthorizationAnswer,
): Promise<{ id: string }> {
  // As the caller, first of all: a credential that has ended uses nothing up, and no trail tells of a service that is not theirs.
  const service = await serviceOf(call, actor, serviceId)
  if (!service) throw neverBegun()
  try {
    const { shared, client, question: asked } = await takeQuestion(call, actor, serviceId, answer.state)
    assertTakes(service, shared ? 'shared' : 'own')
    const expected = { ...asked, verifier: new Secret(asked.verifier) }
    const tokens = await exchangeCode(call.platform, client, expected, answer)
    await store(call, actor, { serviceId, shared, client, question: asked, tokens })
    return { id: serviceId }
  } catch (error) {
    if (error instanceof AppError) await recordRefusal(call, actor, serviceId, error)
    throw error
  }
}

type Connected = Asked & { serviceId: string; tokens: Tokens }

/** Written as the caller, under their own row level security: nobody's tokens can be put down as another's. */
async function store({ platform, now }: Call, actor: Member, connected: Connected): Promise<void> {
  const { serviceId, shared, client, question: asked, tokens } = connected
  const { orgId } = actor
  const userId = shared ? null : actor.userId
  const owner = shared ? 'shared' : actor.userId
  const { issuer, tokenEndpoint, revocationEndpoint, resource } = asked
  const data = {
    ...{ orgId, serviceId, userId, clientId: client.id, issuer, tokenEndpoint, revocationEndpoint, resource },
    ...sealTokens(platform.vault, { orgId, owner, serviceId }, tokens),
    scope: tokens.scope ?? asked.scope,
    createdAt: now,
    updatedAt: now,
  }
  await platform.database
    .transact(actor, async (tx: Tx) => {
      await tx.oauthConnection.deleteMany({ where: { serviceId, orgId, userId } })
      await tx.oauthConnection.createMany({ data: [data] })
      const detail = { issuer, shared }
      await appendAudit(tx, actor, { action: 'serviceConnection.completed', target: serviceId, detail }, 'ok', now)
    })
    .catch((error: unknown) => {
      // The service moved or its client was replaced while the code was exchanged.
      if (error instanceof Error && 'code' in error && error.code === 'P2003')
        throw new AppError('CONFLICT', 'The service was changed meanwhile. Begin again: connectService.')
      throw error
    })
}

/** Answers that fit no question are what an attack looks like; the trail has them, without what they said. */
async function recordRefusal(
  { platform, now }: Call,
  actor: Member,
  serviceId: string,
  { code }: AppError,
): Promise<void> {
  const entry = { action: 'serviceConnection.refused', target: serviceId, detail: { code } }
  await platform.database
    .transact(actor, (tx) => appendAudit(tx, actor, entry, 'failed', now))
    .catch((err: unknown) => platform.log.error({ err, requestId: actor.origin.requestId }, 'a refusal could not be recorded')) // prettier-ignore
}

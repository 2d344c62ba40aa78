import { SecretInAnswer, SecretInArguments } from './relayErrors.ts'
import { secretIn } from './secrets.ts'
import type { Json, Passage } from './types.ts'
import type { Ask, Notification } from './upstreamExchange.ts'

const blocks = ({ safety }: Passage): boolean => safety?.blockSecrets === true

const refused = (path: readonly string[]): SecretInArguments =>
  new SecretInArguments('', [
    { path: [...path], message: 'looks like a credential, and your organisation lets none pass' },
  ])

/** Refuses a request that would take a credential to an upstream; `_meta` is the protocol's own. */
export function refuseSecrets(passage: Passage, { _meta: _, ...params }: Json): void {
  const path = blocks(passage) ? secretIn(params) : null
  if (path) throw refused(path)
}

/** Refuses an answer that holds a credential. */
export function refuseSecretsIn(passage: Passage, result: Json): void {
  if (blocks(passage) && secretIn(result))
    throw new SecretInAnswer('UPSTREAM_ERROR', 'The answer holds a credential, and your organisation lets none pass.')
}

/** Whether something said before the answer is to be left out. */
export const holdsBack = (passage: Passage, { params }: Notification): boolean =>
  blocks(passage) && secretIn(params) !== null

/** What a client is asked, and what it answers, passes the same gate. */
export function guardedAsk(passage: Passage, ask: Ask | undefined): Ask | undefined {
  if (!ask || !blocks(passage)) return ask
  return async (question) => {
    refuseSecretsIn(passage, question.params ?? {})
    const answer = await ask(question)
    const path = secretIn(answer)
    if (path) throw refused(path)
    return answer
  }
}

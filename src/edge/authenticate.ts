import { anonymous, type Actor, type Member, type Origin } from '../kernel/actor.ts'
import { AppError } from '../kernel/errors.ts'
import type { Platform } from '../kernel/platform.ts'
import { forgetApiKey, memberOfApiKey, recallApiKey } from '../modules/apiKeys/verify.ts'
import { memberOfToken } from '../modules/sessions/tokens.ts'

/** Answers null (not mine), a member (yes), or throws (presented, but bad). */
type Strategy = (platform: Platform, headers: Headers, origin: Origin) => Promise<Member> | null

const credential = (headers: Headers, scheme: string): string | null => {
  const [, given, rest] = /^([\w-]+) +([^ ]+)$/.exec(headers.get('authorization') ?? '') ?? []
  return given?.toLowerCase() === scheme && rest ? rest : null
}

function keyOf(headers: Headers): string | null {
  const bearer = credential(headers, 'bearer')
  return headers.get('x-api-key') ?? credential(headers, 'apikey') ?? (bearer?.startsWith('mcp_sk_') ? bearer : null)
}

const apiKey: Strategy = (platform, headers, origin) => {
  const text = keyOf(headers)
  return text === null ? null : memberOfApiKey(platform, text, origin)
}

const accessToken: Strategy = (platform, headers, origin) => {
  const text = credential(headers, 'bearer')
  return text === null ? null : memberOfToken(platform, text, origin)
}

const strategies = [apiKey, accessToken]

/** The actor of a request. A credential that is presented and not good is an error, never an anonymous caller. */
export async function authenticate(platform: Platform, headers: Headers, origin: Origin): Promise<Actor> {
  if (headers.has('x-api-key') && headers.has('authorization'))
    throw new AppError('UNAUTHENTICATED', 'Send one credential: Authorization or X-API-Key, not both.')
  for (const strategy of strategies) {
    const found = await strategy(platform, headers, origin)
    if (found) return found
  }
  if (headers.has('authorization'))
    throw new AppError('UNAUTHENTICATED', 'The Authorization header is not one that this API knows.')
  return anonymous(origin)
}

/**
 * The member of an API key that this instance knows, not yet confirmed; null in every other case. Only for work in which
 * the database confirms the credential with every statement: see `recallApiKey`.
 */
export function recall(platform: Platform, headers: Headers, origin: Origin): Member | null {
  if (headers.has('x-api-key') && headers.has('authorization')) return null
  const text = keyOf(headers)
  return text === null ? null : recallApiKey(platform, text, origin)
}

/** What was recalled did not hold: the next look is the database's. */
export function forget(platform: Platform, headers: Headers): void {
  const text = keyOf(headers)
  if (text !== null) forgetApiKey(platform, text)
}

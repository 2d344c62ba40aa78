import {
  generateAuthenticationOptions,
  generateRegistrationOptions,
  verifyAuthenticationResponse,
  verifyRegistrationResponse,
  type AuthenticationResponseJSON,
  type RegistrationResponseJSON,
} from '@simplewebauthn/server'
import { createHash, randomBytes } from 'node:crypto'
import { z } from 'zod'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError } from '../../kernel/errors.ts'
import type { Platform } from '../../kernel/platform.ts'

const challengeSeconds = 300
const base64url = z.string().regex(/^[\w-]*$/, 'expected base64url').max(16_384) // prettier-ignore
const credential = { id: base64url.min(1).max(2048), rawId: base64url.min(1).max(2048), type: z.literal('public-key') }

/** What `navigator.credentials.get()` gives, as `toJSON()` writes it. */
export const assertionJson = z
  .object({
    ...credential,
    response: z.object({
      clientDataJSON: base64url,
      authenticatorData: base64url,
      signature: base64url,
      userHandle: base64url.nullish(),
    }),
  })
  .meta({ graphql: 'JSON' })
export type Assertion = z.infer<typeof assertionJson>

/** What `navigator.credentials.create()` gives, as `toJSON()` writes it. */
export const attestationJson = z
  .object({
    ...credential,
    response: z.object({
      clientDataJSON: base64url,
      attestationObject: base64url,
      transports: z.array(z.string().max(32)).max(10).optional(),
    }),
  })
  .meta({ graphql: 'JSON' })
export type Attestation = z.infer<typeof attestationJson>

type Call = { platform: Platform; now: Date }
/** `userId` null: whoever the passkey belongs to, at a sign-in without a password. */
type Ceremony = { userId: string | null; boundTo: string }

/** Who the browser must believe it talks to: the host of the public address, from its own origin or the frontend's. */
function relyingParty({ publicUrl, config }: Platform): { rpID: string; origins: string[] } {
  const { hostname, origin } = new URL(publicUrl)
  if (/^\[|^[\d.]+$/.test(hostname))
    throw new AppError(
      'SERVICE_UNAVAILABLE',
      'Passkeys need a host name, not an address: the operator sets PUBLIC_URL.',
    )
  const frontend = config.frontendUrl ? new URL(config.frontendUrl) : null
  const belongs = frontend && (frontend.hostname === hostname || frontend.hostname.endsWith(`.${hostname}`))
  return { rpID: hostname, origins: belongs ? [origin, frontend.origin] : [origin] }
}

const hashOf = (challenge: string): string => createHash('sha256').update(challenge).digest('hex')
const handleOf = (userId: string): Buffer => Buffer.from(userId.replaceAll('-', ''), 'hex')

/** A challenge that is good once, for one ceremony, for five minutes. */
async function newChallenge(tx: Tx, now: Date, { userId, boundTo }: Ceremony): Promise<Uint8Array<ArrayBuffer>> {
  // Those that ran out go as new ones come. Locked rows are left to whoever holds them.
  await tx.$executeRaw`DELETE FROM webauthn_challenges WHERE id IN (
    SELECT id FROM webauthn_challenges WHERE expires_at < ${now} ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED)`
  const challenge = Uint8Array.from(randomBytes(32))
  const challengeHash = hashOf(Buffer.from(challenge).toString('base64url'))
  const expiresAt = new Date(now.getTime() + challengeSeconds * 1000)
  await tx.webauthnChallenge.createMany({ data: [{ challengeHash, userId, boundTo, createdAt: now, expiresAt }] })
  return challenge
}

const clientData = z.object({ challenge: z.string().max(1000), crossOrigin: z.boolean().optional() })

/** Takes the challenge that was signed, whatever else turns out to be wrong with the answer. Null: not one of ours. */
async function takeChallenge(
  tx: Tx,
  now: Date,
  { userId, boundTo }: Ceremony,
  clientDataJSON: string,
): Promise<string | null> {
  let data: z.infer<typeof clientData>
  try {
    data = clientData.parse(JSON.parse(Buffer.from(clientDataJSON, 'base64url').toString()))
  } catch {
    return null
  }
  const { count } = await tx.webauthnChallenge.updateMany({
    where: { challengeHash: hashOf(data.challenge), userId, boundTo, usedAt: null, expiresAt: { gt: now } },
    data: { usedAt: now },
  })
  // A page of somebody else's that frames ours could have asked for it (WebAuthn Level 3, section 13.4.9).
  return count === 1 && !data.crossOrigin ? data.challenge : null
}

const descriptors = (tx: Tx, userId: string) =>
  tx.secondFactor.findMany({
    where: { userId, kind: 'PASSKEY', confirmedAt: { not: null } },
    select: { credentialId: true, transports: true },
  })

export async function registrationOptions(
  tx: Tx,
  { platform, now }: Call,
  { userId, boundTo, email, name }: { userId: string; boundTo: string; email: string; name: string },
) {
  const known = await descriptors(tx, userId)
  return generateRegistrationOptions({
    rpName: 'MCP Platform',
    rpID: relyingParty(platform).rpID,
    userName: email,
    userDisplayName: name,
    userID: Uint8Array.from(handleOf(userId)),
    challenge: await newChallenge(tx, now, { userId, boundTo }),
    timeout: challengeSeconds * 1000,
    attestationType: 'none',
    excludeCredentials: known.map(({ credentialId, transports }) => ({ id: credentialId ?? '', transports })),
    authenticatorSelection: { residentKey: 'preferred', userVerification: 'preferred' },
  })
}

/** The passkey that a registration proves, or null. */
export async function verifyRegistration(
  tx: Tx,
  { platform, now }: Call,
  ceremony: Ceremony,
  response: Attestation,
): Promise<{
  credentialId: string
  publicKey: string
  counter: number
  transports: string[]
  backedUp: boolean
} | null> {
  const { rpID, origins } = relyingParty(platform)
  const challenge = await takeChallenge(tx, now, ceremony, response.response.clientDataJSON)
  if (challenge === null) return null
  const verified = await verifyRegistrationResponse({
    response: { ...response, clientExtensionResults: {} } as RegistrationResponseJSON,
    expectedChallenge: challenge,
    expectedOrigin: origins,
    expectedRPID: rpID,
    requireUserVerification: false,
  }).catch(() => null)
  if (!verified?.verified) return null
  const { credential: made, credentialBackedUp: backedUp } = verified.registrationInfo
  return {
    credentialId: made.id,
    publicKey: Buffer.from(made.publicKey).toString('base64url'),
    counter: made.counter,
    transports: response.response.transports ?? [],
    backedUp,
  }
}

export async function assertionOptions(tx: Tx, { platform, now }: Call, ceremony: Ceremony) {
  const known = ceremony.userId ? await descriptors(tx, ceremony.userId) : null
  return generateAuthenticationOptions({
    rpID: relyingParty(platform).rpID,
    challenge: await newChallenge(tx, now, ceremony),
    timeout: challengeSeconds * 1000,
    // A passkey that stands in for the password must ask for the finger or the PIN itself.
    userVerification: ceremony.userId ? 'preferred' : 'required',
    ...(known
      ? { allowCredentials: known.map(({ credentialId, transports }) => ({ id: credentialId ?? '', transports })) }
      : {}),
  })
}

type PasskeyRow = { id: string; userId: string; publicKey: string | null; transports: string[] }
export type PasskeyVerdict = { ok: true; id: string; userId: string } | { ok: false; cloned: PasskeyRow | null }

const refused: PasskeyVerdict = { ok: false, cloned: null }

/** Takes an assertion: the challenge first, then the credential, the signature, and the counter. */
export async function useAssertion(
  tx: Tx,
  { platform, now }: Call,
  ceremony: Ceremony,
  { id, rawId, type, response }: Assertion,
): Promise<PasskeyVerdict> {
  const { rpID, origins } = relyingParty(platform)
  const challenge = await takeChallenge(tx, now, ceremony, response.clientDataJSON)
  if (challenge === null) return refused
  const factor = await tx.secondFactor.findFirst({
    where: { credentialId: id, kind: 'PASSKEY', confirmedAt: { not: null } },
    select: { id: true, userId: true, publicKey: true, transports: true },
  })
  if (!factor || (ceremony.userId !== null && factor.userId !== ceremony.userId)) return refused
  // Without a password before it, the handle says whom the authenticator means (WebAuthn, section 7.2, step 6).
  const { userHandle, ...signed } = response
  if (userHandle ? userHandle !== handleOf(factor.userId).toString('base64url') : ceremony.userId === null)
    return refused
  const verified = await verifyAuthenticationResponse({
    response: { id, rawId, type, response: signed, clientExtensionResults: {} } as AuthenticationResponseJSON,
    expectedChallenge: challenge,
    expectedOrigin: origins,
    expectedRPID: rpID,
    requireUserVerification: ceremony.userId === null,
    credential: {
      id,
      publicKey: Uint8Array.from(Buffer.from(factor.publicKey ?? '', 'base64url')),
      // Zero: the counter is compared below, after the signature, by the statement that moves it.
      counter: 0,
      transports: factor.transports,
    },
  }).catch(() => null)
  if (!verified?.verified) return refused
  const { newCounter, credentialBackedUp } = verified.authenticationInfo
  const moved = await moveCounter(tx, factor.id, newCounter, { backedUp: credentialBackedUp, lastUsedAt: now })
  return moved ? { ok: true, id: factor.id, userId: factor.userId } : { ok: false, cloned: factor }
}

/** A counter that does not grow means that two devices hold the key (WebAuthn, section 6.1.1). Zero is "none kept". */
async function moveCounter(
  tx: Tx,
  id: string,
  counter: number,
  seen: { backedUp: boolean; lastUsedAt: Date },
): Promise<boolean> {
  const grows = { counter: { lt: counter } }
  const { count } = await tx.secondFactor.updateMany({
    where: { id, ...(counter === 0 ? { counter: 0 } : grows) },
    data: { counter, ...seen },
  })
  return count === 1
}

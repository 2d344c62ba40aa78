import { randomUUID } from 'node:crypto'
import { tokenIn } from '../../harness/mailbox.ts'
import { addMember, createKey, fresh, password, type Person } from '../../harness/seed.ts'
import { SoftAuthenticator } from '../../sessions/softAuthenticator.ts'
import type { Question } from './questions.ts'
import { admin, ask, prepare, somebody, type Stage } from './stage.ts'

const address = (): string => `p-${randomUUID()}@example.com`
const better = 'glacier mosaic thimble 77'
const newcomer = async ({ world, org }: Stage): Promise<Person> =>
  fresh(world, await addMember(world, org.id, 'ORG_ADMIN'))
const codeIn = (text: string): string => /\b\d{8}\b/.exec(text)?.[0] ?? ''

/** Somebody who has an authenticator app; the next code of it is good. */
async function withTotp(stage: Stage) {
  const enrolled = await stage.client.enrolTotp(await newcomer(stage))
  return { ...enrolled, next: () => stage.client.nextCode(enrolled.secret) }
}
const withPasskey = async (stage: Stage) => stage.client.enrolPasskey(await newcomer(stage))

/** Somebody whose second factor is codes by mail, and how many mails they have had. */
async function withEmailCodes(stage: Stage): Promise<Person> {
  const person = await newcomer(stage)
  await prepare(stage, 'enrolEmailCodes', { password }, person, '{ expiresAt }')
  const code = codeIn((await stage.mailbox.to(person.email)).text)
  const { accessToken } = await prepare(stage, 'confirmEmailCodes', { code }, person, '{ accessToken }')
  return { ...person, authorization: `Bearer ${accessToken}` }
}

/** The refresh cookie of a new session. */
async function cookieOf(stage: Stage, { email }: Person): Promise<string> {
  const { response } = await ask(stage, 'mutation', 'signIn', { input: { email, password } })
  return response.headers.getSetCookie()[0]?.split(';')[0] ?? ''
}

const invitation = async (stage: Stage, email: string) =>
  prepare(stage, 'inviteMember', { email, role: 'VIEWER' }, await admin(stage))
const own = async (stage: Stage): Promise<{ as: Person }> => ({ as: await newcomer(stage) })

/** Accounts, sessions, second factors, members, keys. */
export const asksOfAccounts: Record<string, Question> = {
  acceptInvitation: async (stage) => {
    const email = address()
    await invitation(stage, email)
    return { input: { token: tokenIn(await stage.mailbox.to(email)), name: 'Ada', password: better } }
  },
  changePassword: async (stage) => ({ as: await somebody(stage), input: { currentPassword: password, newPassword: better } }),
  changeRole: async (stage) => ({ as: await admin(stage), input: { id: (await somebody(stage)).membershipId, role: 'VIEWER' } }),
  completeSignIn: async (stage) => {
    const { person, next } = await withTotp(stage)
    const { id } = await stage.client.challenge(person.email)
    return { input: { challengeId: id, method: 'TOTP', code: next() } }
  },
  confirmEmailCodes: async (stage) => {
    const as = await newcomer(stage)
    await prepare(stage, 'enrolEmailCodes', { password }, as, '{ expiresAt }')
    return { as, input: { code: codeIn((await stage.mailbox.to(as.email)).text) } }
  },
  confirmTotp: async (stage) => {
    const as = await newcomer(stage)
    const { id, secret } = await prepare(stage, 'enrolTotp', { password }, as, '{ id secret }')
    return { as, input: { id, code: stage.client.code(secret) } }
  },
  createApiKey: async (stage) => ({ as: await newcomer(stage), input: { name: 'key', scopes: ['mcp:read'] } }),
  deactivateMember: async (stage) => ({ as: await admin(stage), input: { id: (await somebody(stage)).membershipId } }),
  endOtherSessions: async (stage) => ({ as: await somebody(stage) }),
  endSession: async (stage) => {
    const as = await somebody(stage)
    const { data } = await stage.world.graphql('{ viewer { sessions(first: 2) { edges { node { id current } } } } }', {}, as)
    const [other] = data['viewer'].sessions.edges.filter(({ node }: any) => !node.current)
    return { as, input: { id: other.node.id } }
  },
  enrolEmailCodes: async (stage) => ({ ...(await own(stage)), input: { password } }),
  enrolTotp: async (stage) => ({ ...(await own(stage)), input: { password } }),
  inviteMember: async (stage) => ({ as: await admin(stage), input: { email: address(), role: 'VIEWER' } }),
  reactivateMember: async (stage) => {
    const { membershipId: id } = await somebody(stage)
    await prepare(stage, 'deactivateMember', { id }, await admin(stage))
    return { as: await admin(stage), input: { id } }
  },
  refreshSession: async (stage) => ({
    input: {},
    headers: { cookie: await cookieOf(stage, await newcomer(stage)), origin: stage.world.platform.publicUrl, 'x-requested-with': 'mcp-platform' },
  }),
  regenerateRecoveryCodes: async (stage) => ({ as: (await withTotp(stage)).person }),
  registerPasskey: async (stage) => {
    const as = await newcomer(stage)
    const { options } = await prepare(stage, 'startPasskeyRegistration', { password }, as, '{ options }')
    return { as, input: { attestation: new SoftAuthenticator(stage.world.platform.publicUrl).register(options) } }
  },
  removeMember: async (stage) => ({ as: await admin(stage), input: { id: (await somebody(stage)).membershipId } }),
  removeSecondFactor: async (stage) => {
    const { person, id } = await withTotp(stage)
    return { as: person, input: { id } }
  },
  requestPasswordReset: async (stage) => ({ input: { email: (await newcomer(stage)).email } }),
  resetPassword: async (stage) => {
    const { email } = await somebody(stage)
    await prepare(stage, 'requestPasswordReset', { email }, {}, '{ accepted }')
    return { input: { token: tokenIn(await stage.mailbox.to(email)), password: better } }
  },
  revokeApiKey: async (stage) => {
    const as = await somebody(stage)
    return { as, input: { id: (await createKey(stage.world, as, ['mcp:read'])).id } }
  },
  revokeInvitation: async (stage) => ({ as: await admin(stage), input: { id: (await invitation(stage, address())).id } }),
  rotateApiKey: async (stage) => {
    const as = await somebody(stage)
    return { as, input: { id: (await createKey(stage.world, as, ['mcp:read'])).id, overlapSeconds: 60 } }
  },
  sendSignInCode: async (stage) => ({ input: { challengeId: (await stage.client.challenge((await withEmailCodes(stage)).email)).id } }),
  sendStepUpCode: async (stage) => ({ as: await withEmailCodes(stage) }),
  signIn: async (stage) => ({ input: { email: (await newcomer(stage)).email, password } }),
  'signIn · with a second factor to come': async (stage) => ({ input: { email: (await withTotp(stage)).person.email, password } }),
  signInWithPasskey: async (stage) => {
    const { passkey } = await withPasskey(stage)
    const { options } = await prepare(stage, 'startPasskeySignIn', {}, {}, '{ options }')
    return { input: { assertion: passkey.assert(options) } }
  },
  signOut: own,
  signUp: () => ({ input: { email: address(), password, name: 'Ada', organizationName: 'Engines' } }),
  startPasskeyRegistration: async (stage) => ({ ...(await own(stage)), input: { password } }),
  startPasskeySignIn: () => ({ input: {} }),
  startPasskeyStepUp: async (stage) => ({ as: (await withPasskey(stage)).person }),
  stepUp: async (stage) => {
    const { person, next } = await withTotp(stage)
    return { as: person, input: { method: 'TOTP', code: next() } }
  },
  updateOrganization: async (stage) => ({ as: await admin(stage), input: { name: 'Renamed' } }),
  updateProfile: async (stage) => ({ ...(await own(stage)), input: { name: 'Renamed' } }),
  verifyEmail: async (stage) => {
    const email = address()
    const input = { email, password, name: 'Ada', organizationName: 'Engines' }
    await prepare({ world: stage.strict }, 'signUp', input, {}, '{ emailVerification }')
    return { input: { token: tokenIn(await stage.mailbox.to(email)) } }
  },
} // prettier-ignore

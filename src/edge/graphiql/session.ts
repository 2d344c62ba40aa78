import { createGraphiQLFetcher, type Fetcher } from '@graphiql/toolkit'
import * as z from 'zod/mini'

// zod's compiled parsers probe `new Function`, which script-src 'self' refuses and reports as a violation.
z.config({ jitless: true })

const endpoint = '/graphql'

/** Held in memory alone: a reload, or closing the tab, forgets it. */
export type Session = { email: string; accessToken: string; expiresAt: Date }
export type Credentials = { email: string; password: string }

const Method = z.enum(['PASSKEY', 'TOTP', 'EMAIL', 'RECOVERY_CODE'])
export type Method = z.infer<typeof Method>
const Challenge = z.object({ id: z.string(), methods: z.array(Method), message: z.string() })
/** The password was right; one of these methods is still to come. */
export type Challenge = z.infer<typeof Challenge>
export type Proof = { method: Method; code?: string; assertion?: unknown }
export type SignInOutcome = { session: Session } | { challenge: Challenge } | { refusal: string }

const Entered = z.object({
  accessToken: z.nullish(z.string()),
  expiresAt: z.nullish(z.coerce.date()),
  challenge: z.nullish(Challenge),
})
const Answer = z.object({
  data: z.nullish(z.record(z.string(), z.unknown())),
  errors: z.optional(
    z.array(z.object({ message: z.string(), extensions: z.optional(z.object({ code: z.optional(z.string()) })) })),
  ),
})

const signInDocument = `mutation SignIn($input: SignInInput!) {
  answer: signIn(input: $input) { accessToken expiresAt challenge { id methods message } }
}`
const completeDocument = `mutation CompleteSignIn($input: CompleteSignInInput!) {
  answer: completeSignIn(input: $input) { accessToken expiresAt }
}`
const sendCodeDocument = `mutation SendSignInCode($input: SendSignInCodeInput!) {
  answer: sendSignInCode(input: $input) { expiresAt }
}`
const passkeyDocument = `mutation StartPasskeySignIn($input: StartPasskeySignInInput!) {
  answer: startPasskeySignIn(input: $input) { options }
}`
const connectDocument = `mutation CompleteServiceConnection($input: CompleteServiceConnectionInput!) {
  answer: completeServiceConnection(input: $input) { name }
}`
const signOutDocument = 'mutation SignOut { answer: signOut { sessionId } }'

/** Cookies are left out both ways, so that the refresh cookie of another tab is neither sent nor replaced from here. */
async function post(init: RequestInit): Promise<Response> {
  return fetch(endpoint, { ...init, method: 'POST', credentials: 'omit' })
}

/** The server said no; its sentence is fit to be shown. */
class Refused extends Error {
  readonly code: string | undefined

  constructor(message: string, code: string | undefined) {
    super(message)
    this.code = code
  }
}

/** What the one field of a mutation answered. */
async function mutate(query: string, input?: object, init: { headers?: object; signal?: AbortSignal } = {}) {
  const response = await post({
    ...(init.signal ? { signal: init.signal } : {}),
    headers: {
      'content-type': 'application/json',
      accept: 'application/graphql-response+json, application/json;q=0.9',
      ...init.headers,
    },
    body: JSON.stringify({ query, ...(input ? { variables: { input } } : {}) }),
  })
  const { data, errors } = z.parse(Answer, await response.json())
  if (errors?.length) throw new Refused(errors.map(({ message }) => message).join(' '), errors[0]?.extensions?.code)
  return data?.['answer']
}

const refusalOf = (error: unknown): { refusal: string } => ({
  refusal:
    error instanceof Refused
      ? error.message
      : 'The server could not be reached, or its answer was not understood. Try again.',
})

async function enter(email: string, query: string, input: object): Promise<SignInOutcome> {
  try {
    const { accessToken, expiresAt, challenge } = z.parse(Entered, await mutate(query, input))
    if (accessToken && expiresAt) return { session: { email, accessToken, expiresAt } }
    return challenge ? { challenge } : { refusal: 'Signing in needs a further step that this page does not offer.' }
  } catch (error) {
    return refusalOf(error)
  }
}

export const signIn = ({ email, password }: Credentials): Promise<SignInOutcome> =>
  enter(email, signInDocument, { email, password })

export const completeSignIn = (email: string, challengeId: string, proof: Proof): Promise<SignInOutcome> =>
  enter(email, completeDocument, { challengeId, ...proof })

/** Null: a code is on its way to the account's own address. */
export async function sendCode(challengeId: string): Promise<{ refusal: string } | null> {
  try {
    await mutate(sendCodeDocument, { challengeId })
    return null
  } catch (error) {
    return refusalOf(error)
  }
}

/** Asks the browser for the passkey; its own dialog says what goes wrong there, so that counts as a change of mind. */
export async function askPasskey(challengeId: string): Promise<Proof | { refusal: string }> {
  try {
    const { options } = z.parse(z.object({ options: z.unknown() }), await mutate(passkeyDocument, { challengeId }))
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options as PublicKeyCredentialRequestOptionsJSON)
    const credential = await navigator.credentials.get({ publicKey })
    if (credential instanceof PublicKeyCredential) return { method: 'PASSKEY', assertion: credential.toJSON() }
    return { refusal: 'No passkey was given.' }
  } catch (error) {
    return error instanceof DOMException ? { refusal: 'No passkey was given.' } : refusalOf(error)
  }
}

/** Ends what was begun in this session; answers with a sentence to show, or null where nothing was begun here. */
export async function completeConnection({ accessToken }: Session, answer: object): Promise<string | null> {
  try {
    const done = await mutate(connectDocument, answer, { headers: { authorization: `Bearer ${accessToken}` } })
    const { name } = z.parse(z.object({ name: z.string() }), done)
    return `Your account is connected to ${name}. You can close this page.`
  } catch (error) {
    return error instanceof Refused && error.code === 'NOT_FOUND' ? null : refusalOf(error).refusal
  }
}

/** Ends the session on the server. Whatever comes of it, the page forgets the token; unheard, it lives a quarter of an hour. */
export async function signOut({ accessToken }: Session): Promise<void> {
  const headers = { authorization: `Bearer ${accessToken}` }
  await mutate(signOutDocument, undefined, { headers, signal: AbortSignal.timeout(5000) }).catch(() => {})
}

/** A header typed into GraphiQL's own editor wins, so that an API key can be tried while signed in. */
export function createFetcher(session: Session | null): Fetcher {
  return createGraphiQLFetcher({
    url: endpoint,
    enableIncrementalDelivery: false,
    fetch: (_url, init) => {
      const headers = new Headers(init?.headers)
      if (session && !headers.has('authorization')) headers.set('authorization', `Bearer ${session.accessToken}`)
      return post({ ...init, headers })
    },
  })
}

import { createGraphiQLFetcher, type Fetcher } from '@graphiql/toolkit'
import * as z from 'zod/mini'

// zod's compiled parsers probe `new Function`, which script-src 'self' refuses and reports as a violation.
z.config({ jitless: true })

const endpoint = '/graphql'

/** Held in memory alone: a reload, or closing the tab, forgets it. */
export type Session = { email: string; accessToken: string; expiresAt: Date }
export type Credentials = { email: string; password: string }
export type SignInOutcome = { session: Session } | { refusal: string }

const Answer = z.object({
  data: z.nullish(
    z.object({
      signIn: z.nullish(
        z.object({
          accessToken: z.nullish(z.string()),
          expiresAt: z.nullish(z.coerce.date()),
          challenge: z.nullish(z.object({ message: z.string() })),
        }),
      ),
    }),
  ),
  errors: z.optional(z.array(z.object({ message: z.string() }))),
})

const signInDocument = `mutation SignIn($email: String!, $password: String!) {
  signIn(input: { email: $email, password: $password }) { accessToken expiresAt }
}`

/** Cookies are left out both ways, so that the refresh cookie of another tab is neither sent nor replaced from here. */
async function post(init: RequestInit): Promise<Response> {
  return fetch(endpoint, { ...init, method: 'POST', credentials: 'omit' })
}

export async function signIn({ email, password }: Credentials): Promise<SignInOutcome> {
  try {
    const response = await post({
      headers: {
        'content-type': 'application/json',
        accept: 'application/graphql-response+json, application/json;q=0.9',
      },
      body: JSON.stringify({ query: signInDocument, variables: { email, password } }),
    })
    return readOutcome(email, z.parse(Answer, await response.json()))
  } catch {
    return { refusal: 'The server could not be reached, or its answer was not understood. Try again.' }
  }
}

function readOutcome(email: string, { data, errors }: z.infer<typeof Answer>): SignInOutcome {
  const { accessToken, expiresAt, challenge } = data?.signIn ?? {}
  if (accessToken && expiresAt) return { session: { email, accessToken, expiresAt } }
  if (challenge) return { refusal: challenge.message }
  const messages = (errors ?? []).map(({ message }) => message).join(' ')
  return { refusal: messages || 'Signing in needs a further step that this page does not offer.' }
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

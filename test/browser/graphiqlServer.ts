import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createGraphQLError, createSchema, createYoga } from 'graphql-yoga'
import { createGraphiql, type Graphiql } from '../../src/edge/graphiql.ts'

/** What security-considerations.md asks of every response. */
export const securityHeaders: Record<string, string> = {
  'strict-transport-security': 'max-age=31536000; includeSubDomains',
  'content-security-policy': "default-src 'self'; script-src 'self'; object-src 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'x-xss-protection': '1; mode=block',
  'referrer-policy': 'strict-origin-when-cross-origin',
  'cache-control': 'no-store',
}

export const password = 'correct horse battery staple'
export const accessToken = 'eyJhbGciOiJSUzI1NiJ9.a-token-for-the-browser-test.signature'

type Context = { authorization: string | null }
type Credentials = { input: { email: string; password: string } }

const typeDefs = /* GraphQL */ `
  type Query {
    "The person who is signed in."
    viewer: User
    echo(text: String!): String!
  }
  type User {
    id: ID!
    name: String!
    email: String!
    organization: Organization!
  }
  type Organization {
    name: String!
  }
  type Mutation {
    signIn(input: SignInInput!): Session
    signOut: SignedOut
  }
  type SignedOut {
    sessionId: ID!
  }
  input SignInInput {
    email: String!
    password: String!
  }
  type Session {
    accessToken: String!
    expiresAt: String!
    challenge: Challenge
  }
  type Challenge {
    id: String!
    methods: [String!]!
    message: String!
  }
`

const refuse = (message: string, code: string) => createGraphQLError(message, { extensions: { code } })

function signIn(_root: unknown, { input }: Credentials) {
  if (input.password !== password) throw refuse('The e-mail address or the password is wrong.', 'INVALID_CREDENTIALS')
  if (input.email.startsWith('mfa@')) throw refuse('Enter the code of your authenticator app.', 'MFA_REQUIRED')
  const lifetimeSeconds = input.email.startsWith('brief@') ? 1 : 900
  return { accessToken, expiresAt: new Date(Date.now() + lifetimeSeconds * 1000).toISOString() }
}

function viewer(_root: unknown, _args: unknown, { authorization }: Context) {
  if (authorization !== `Bearer ${accessToken}`) throw refuse('Sign in first.', 'UNAUTHENTICATED')
  return { id: 'u1', name: 'Ada Lovelace', email: 'ada@example.com', organization: { name: 'Analytical Engines' } }
}

const schema = createSchema<Context>({
  typeDefs,
  resolvers: {
    Query: { viewer, echo: (_root: unknown, args: { text: string }) => args.text },
    Mutation: { signIn, signOut: () => ({ sessionId: 's1' }) },
  },
})

export type TestServer = {
  origin: string
  /** The Authorization headers of the schema's readings since the start. */
  introspections: (string | null)[]
  close(): Promise<void>
}

/** The page as the edge serves it, or, on `relaxed: false`, under the general policy alone. */
export async function startServer(directory: string, { relaxed = true } = {}): Promise<TestServer> {
  const graphiql = createGraphiql({ directory })
  const introspections: (string | null)[] = []
  const yoga = createYoga<object, Context>({
    schema,
    graphiql: false,
    logging: false,
    context: ({ request, params }) => {
      const authorization = request.headers.get('authorization')
      if (params.operationName === 'IntrospectionQuery') introspections.push(authorization)
      return { authorization }
    },
  })
  const server = createServer((request, response) => {
    for (const [name, value] of Object.entries(securityHeaders)) response.setHeader(name, value)
    const answer = answerStatic(graphiql, request)
    if (!answer) return void yoga(request, response)
    if (!relaxed) answer.headers.delete('content-security-policy')
    void send(answer, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    origin: `http://127.0.0.1:${port}`,
    introspections,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function answerStatic(graphiql: Graphiql, request: IncomingMessage): Response | null {
  const { pathname } = new URL(request.url ?? '/', 'http://localhost')
  if (pathname !== '/graphql') {
    const headers = new Headers({ 'accept-encoding': request.headers['accept-encoding']?.toString() ?? '' })
    return graphiql.asset(pathname, headers) ?? new Response('Not found', { status: 404 })
  }
  return request.method === 'GET' && request.headers.accept?.includes('text/html') ? graphiql.page() : null
}

async function send(answer: Response, response: ServerResponse): Promise<void> {
  for (const [name, value] of answer.headers) response.setHeader(name, value)
  response.writeHead(answer.status)
  response.end(new Uint8Array(await answer.arrayBuffer()))
}

type Answer = { data: Record<string, any> | null; errors?: { message: string }[] }

export type Site = {
  /** An API key that may read and write. */
  authorization: string
  /** The key's owner, by a session that lasts as long as the run. */
  session: string
  graphql: (query: string, variables?: object) => Promise<Record<string, any>>
  /** Adds a service; answers with the path of its door. */
  add: (slug: string, endpoint: string) => Promise<string>
  /** The same organisation at another address, as after a restart on another port. */
  at: (address: string) => Site
}

async function ask(
  address: string,
  authorization: string | undefined,
  query: string,
  variables: object = {},
): Promise<Record<string, any>> {
  const response = await fetch(`${address}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(authorization ? { authorization } : {}) },
    body: JSON.stringify({ query, variables }),
  })
  const { data, errors } = (await response.json()) as Answer
  if (!data || errors) throw new Error(JSON.stringify(errors))
  return data
}

/** An organisation on a platform that runs as a process, made through its public door. */
export async function settle(address: string): Promise<Site> {
  const input = {
    email: `owner-${process.pid}-${Date.now()}@example.com`,
    password: 'a long and quiet sentence',
    name: 'Owner',
    organizationName: 'Conformance',
  }
  const { signUp } = await ask(
    address,
    undefined,
    'mutation ($input: SignUpInput!) { signUp(input: $input) { accessToken } }',
    { input },
  )
  const session = `Bearer ${signUp.accessToken as string}`
  const graphql = (query: string, variables: object = {}) => ask(address, session, query, variables)
  const { viewer } = await graphql('{ viewer { organization { slug } } }')
  const made = await graphql('mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret } }', {
    input: { name: 'suite', scopes: ['mcp:read', 'mcp:write'] },
  })
  const authorization = `Bearer ${made['createApiKey'].secret as string}`
  return siteAt(address, { authorization, session, organization: viewer.organization.slug as string })
}

type Known = { authorization: string; session: string; organization: string }

function siteAt(address: string, known: Known): Site {
  const { authorization, session, organization } = known
  const graphql: Site['graphql'] = (query, variables) => ask(address, session, query, variables)
  return {
    authorization,
    session,
    graphql,
    at: (other) => siteAt(other, known),
    add: async (slug, endpoint) => {
      await graphql('mutation ($input: CreateServiceInput!) { createService(input: $input) { id } }', {
        input: { slug, name: slug, endpoint },
      })
      return `/mcp/${organization}/${slug}`
    },
  }
}

type Answer = { data: Record<string, any> | null; errors?: { message: string }[] }

export type Site = {
  /** An API key that may read and write. */
  authorization: string
  /** The key's owner, by a session that lasts as long as the run. */
  session: string
  graphql: (query: string, variables?: object) => Promise<Record<string, any>>
  /** Adds a service; answers with the path of its door. */
  add: (slug: string, endpoint: string) => Promise<string>
}

/** An organisation on a platform that runs as a process, made through its public door. */
export async function settle(address: string): Promise<Site> {
  const ask = async (query: string, variables: object = {}, authorization?: string): Promise<Record<string, any>> => {
    const response = await fetch(`${address}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(authorization ? { authorization } : {}) },
      body: JSON.stringify({ query, variables }),
    })
    const { data, errors } = (await response.json()) as Answer
    if (!data || errors) throw new Error(JSON.stringify(errors))
    return data
  }
  const input = {
    email: `owner-${process.pid}-${Date.now()}@example.com`,
    password: 'a long and quiet sentence',
    name: 'Owner',
    organizationName: 'Conformance',
  }
  const { signUp } = await ask('mutation ($input: SignUpInput!) { signUp(input: $input) { accessToken } }', { input })
  const session = `Bearer ${signUp.accessToken as string}`
  const graphql = (query: string, variables: object = {}) => ask(query, variables, session)
  const { viewer } = await graphql('{ viewer { organization { slug } } }')
  const made = await graphql('mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret } }', {
    input: { name: 'suite', scopes: ['mcp:read', 'mcp:write'] },
  })
  return {
    authorization: `Bearer ${made['createApiKey'].secret as string}`,
    session,
    graphql,
    add: async (slug, endpoint) => {
      await graphql('mutation ($input: CreateServiceInput!) { createService(input: $input) { id } }', {
        input: { slug, name: slug, endpoint },
      })
      return `/mcp/${viewer.organization.slug as string}/${slug}`
    },
  }
}

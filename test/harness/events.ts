import type { Credential, World } from './world.ts'

/** Opens a subscription at the public door, over server-sent events. */
export const subscribe = (
  { fetch }: Pick<World, 'fetch'>,
  query: string,
  as: Credential,
  variables: object = {},
): Promise<Response> =>
  fetch('/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'text/event-stream', ...as },
    body: JSON.stringify({ query, variables }),
  })

/** What a subscription sends, until it is complete. */
export async function* events(response: Response): AsyncGenerator<any> {
  let text = ''
  const decoder = new TextDecoder()
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    text += decoder.decode(chunk, { stream: true })
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const event = text.slice(0, end)
      text = text.slice(end + 2)
      const data = /^data: (.*)$/m.exec(event)?.[1]
      if (data) yield JSON.parse(data)
      else if (/^event: complete/m.test(event)) return
    }
  }
}

/** Says something until it is heard, since a stream may not have begun when its answer has. */
export async function heard(stream: AsyncGenerator<any>, cause: () => Promise<unknown>): Promise<any> {
  const next = stream.next()
  let done = false
  void next.then(() => (done = true))
  while (!done) {
    await cause()
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return (await next).value
}

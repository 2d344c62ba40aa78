import * as z from 'zod/mini'
import { completeConnection, type Session } from './session.ts'

const channelName = 'mcp-service-connection'
const Returned = z.object({
  kind: z.literal('answer'),
  serviceId: z.string(),
  state: z.string(),
  code: z.optional(z.string()),
  iss: z.optional(z.string()),
  error: z.optional(z.string()),
})

/**
 * Ends the connections that were begun here, when another tab comes back from an authorization server with the answer. What was
 * begun in another session is not this page's, and it says nothing about it.
 */
export function completeConnections(session: Session): () => void {
  const channel = new BroadcastChannel(channelName)
  channel.addEventListener('message', (event: MessageEvent<unknown>) => {
    const { success, data } = z.safeParse(Returned, event.data)
    if (!success) return
    const { kind: _, ...answer } = data
    void completeConnection(session, answer).then((text) => {
      if (text !== null) channel.postMessage({ kind: 'outcome', state: answer.state, text })
    })
  })
  return () => channel.close()
}

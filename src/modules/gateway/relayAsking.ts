import { ProtocolError, type ClientCapabilities } from '@modelcontextprotocol/client'
import { methodNotFound } from './relayErrors.ts'

const needed: Readonly<Record<string, keyof ClientCapabilities>> = {
  'elicitation/create': 'elicitation',
  'sampling/createMessage': 'sampling',
  'roots/list': 'roots',
}

/** How long a person may take to answer. */
export const answerMs = 600_000

/** Whether this client can be asked anything at all. */
export const askable = (capabilities: ClientCapabilities): boolean =>
  Object.values(needed).some((capability) => capabilities[capability] !== undefined)

/** An upstream may ask a client only for what the client said that it can do. */
export function assertMayAsk(capabilities: ClientCapabilities, method: string): void {
  const capability = Object.hasOwn(needed, method) ? needed[method] : undefined
  if (capability === undefined || capabilities[capability] === undefined)
    throw new ProtocolError(methodNotFound, 'Method not found')
}

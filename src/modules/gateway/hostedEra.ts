import {
  CLIENT_CAPABILITIES_META_KEY,
  CLIENT_INFO_META_KEY,
  PROTOCOL_VERSION_META_KEY,
} from '@modelcontextprotocol/client'
import { HostedProcess, type CatalogueEntry, type Tenancy } from './hostedProcess.ts'
import { gatewayIdentity } from './upstreamSession.ts'
import type { Era } from './upstreamVerdicts.ts'

const modern = '2026-07-28'

const question = {
  jsonrpc: '2.0',
  id: 1,
  method: 'server/discover',
  params: {
    _meta: {
      [PROTOCOL_VERSION_META_KEY]: modern,
      [CLIENT_INFO_META_KEY]: gatewayIdentity,
      [CLIENT_CAPABILITIES_META_KEY]: {},
    },
  },
}

/**
 * Which era a server speaks, asked of a process that is thrown away: servers in use end themselves when anything but
 * `initialize` comes first. Undefined where it gave no answer, which those that speak the legacy era alone may do.
 */
export async function askEra(entry: CatalogueEntry, tenancy: Tenancy): Promise<Era | undefined> {
  let settle = (_: Era | undefined): void => undefined
  const answered = new Promise<Era | undefined>((resolve) => (settle = resolve))
  const process = await HostedProcess.start(entry, tenancy, {
    onSaid: () => undefined,
    onMessage: ({ id, result }) => {
      if (id === 1) settle(supports(result) ? 'modern' : 'legacy')
    },
    onEnd: () => settle(undefined),
  })
  const timer = setTimeout(() => settle(undefined), entry.limits.startSeconds * 1000)
  try {
    process.send(question)
    return await answered
  } catch {
    return undefined
  } finally {
    clearTimeout(timer)
    await process.kill()
  }
}

function supports(result: unknown): boolean {
  const versions = (result as { supportedVersions?: unknown } | undefined)?.supportedVersions
  return Array.isArray(versions) && versions.includes(modern)
}

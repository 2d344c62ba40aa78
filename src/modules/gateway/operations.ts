import { z } from 'zod'
import { procedure } from '../../kernel/operation.ts'
import { scope } from '../../kernel/rule.ts'
import { actingMember } from '../services/operations.ts'
import { gateway, passageTo } from './passage.ts'

/** A tool of a service, called as the caller. Reading is the least it takes; the tool's own access may ask for more. */
export const callTool = procedure({
  name: 'callTool',
  requires: scope('mcp:read'),
  input: z.strictObject({
    service: z.string().min(1).max(63).describe('Slug of the service.'),
    tool: z.string().min(1).max(200),
    arguments: z
      .record(z.string(), z.unknown())
      .meta({ graphql: 'JSON' })
      .optional()
      .describe('The tool’s arguments, by name.'),
  }),
  perform: async ({ actor, platform, signal }, { service, tool, arguments: values }) => {
    const started = performance.now()
    const passage = await passageTo(platform, actingMember(actor), service)
    const { requestId } = actor.origin
    const result = await gateway(platform).callTool(passage, { name: tool, arguments: values, requestId, signal })
    return { ...result, requestId, durationMs: Math.round(performance.now() - started) }
  },
})

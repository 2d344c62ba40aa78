import { z } from 'zod'
import { isMember, type Actor, type Member } from '../../kernel/actor.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError, badInput } from '../../kernel/errors.ts'
import { nodeId } from '../../kernel/nodeId.ts'
import { operation } from '../../kernel/operation.ts'
import { allOf, scope, stepUp } from '../../kernel/rule.ts'
import { Secret } from '../../kernel/secret.ts'

export const credentialModes = z.enum({ NONE: 'NONE', SHARED: 'SHARED', PERSONAL: 'PERSONAL' })
export const credentialKinds = z.enum({ TOKEN: 'TOKEN', OAUTH: 'OAUTH' })
export const toolAccesses = z.enum({ READ: 'READ', WRITE: 'WRITE', BLOCKED: 'BLOCKED' })

export const slug = z.string().regex(/^(?!-)[a-z0-9-]{1,40}(?<!-)$/, 'expected 1 to 40 of a–z, 0–9 and inner dashes')
export const endpoint = z
  .url({ protocol: /^https?$/, error: 'expected an http:// or https:// address' })
  .max(2000)
  .refine(
    (text) => !URL.canParse(text) || (new URL(text).username === '' && new URL(text).password === ''),
    'expected no user or password in the address',
  )
  .refine((text) => !URL.canParse(text) || new URL(text).hash === '', 'expected no fragment in the address')
// Headers that belong to the protocol or to the connection carry no credential.
const reserved =
  /^(host|connection|content-.*|transfer-encoding|accept.*|mcp-.*|cookie|upgrade|te|trailer|keep-alive|proxy-.*|forwarded|x-forwarded-.*|user-agent|last-event-id|origin|referer)$/
const credentialHeader = z
  .string()
  .toLowerCase()
  .regex(/^[a-z0-9!#$%&'*+.^_`|~-]{1,64}$/, 'expected a header name')
  .refine((name) => !reserved.test(name), 'this header cannot carry a credential')

const fields = {
  name: z.string().trim().min(1).max(100),
  description: z.string().trim().max(2000),
  endpoint,
  credentialMode: credentialModes,
  credentialHeader: credentialHeader.describe(
    'Header that carries the credential; `authorization` sends it as a bearer token.',
  ),
  credentialKind: credentialKinds,
  enabled: z.boolean(),
}

/** The member behind an operation whose rule admits members alone. */
export function actingMember(actor: Actor): Member {
  if (isMember(actor)) return actor
  throw new AppError('UNAUTHENTICATED', 'Sign in, or send an API key.')
}

const serviceTarget = {
  noun: 'service',
  find: (tx: Tx, { id }: { id: string }) =>
    tx.service.findFirst({ where: { id }, select: { id: true, slug: true, endpoint: true, hosted: true } }),
}

export const createService = operation({
  name: 'createService',
  requires: scope('mcp:write'),
  input: z.strictObject({
    slug: slug.describe('Its part of `/mcp/{organization}/{service}`.'),
    name: fields.name,
    description: fields.description.optional(),
    endpoint: endpoint.describe('Address of the MCP server (Streamable HTTP).'),
    credentialMode: credentialModes.optional().describe('Default: NONE.'),
    credentialHeader: fields.credentialHeader.optional(),
    credentialKind: credentialKinds.optional().describe('Default: TOKEN.'),
    enabled: fields.enabled.optional(),
  }),
  run: ({ tx, actor, now }, { slug, name, endpoint, ...rest }) =>
    tx.service.create({
      data: {
        orgId: actingMember(actor).orgId,
        slug,
        name,
        endpoint,
        description: rest.description ?? '',
        credentialMode: rest.credentialMode ?? 'NONE',
        credentialHeader: rest.credentialHeader ?? 'authorization',
        credentialKind: rest.credentialKind ?? 'TOKEN',
        enabled: rest.enabled ?? true,
        createdAt: now,
      },
      select: { id: true },
    }),
  audit: ({ id }, { slug, endpoint }) => ({ action: 'service.created', target: id, detail: { slug, endpoint } }),
})

export const updateService = operation({
  name: 'updateService',
  requires: scope('mcp:write'),
  input: z.strictObject({
    id: nodeId('Service'),
    name: fields.name.optional(),
    description: fields.description.optional(),
    endpoint: endpoint.optional(),
    credentialMode: credentialModes.optional(),
    credentialHeader: fields.credentialHeader.optional(),
    credentialKind: fields.credentialKind.optional(),
    enabled: fields.enabled.optional(),
  }),
  target: serviceTarget,
  run: async ({ tx, row }, { id, ...changes }) => {
    if (typeof row?.hosted === 'string' && changes.endpoint !== undefined)
      throw badInput([{ path: ['endpoint'], message: 'a service of the catalogue has no address' }])
    const data = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined))
    if (Object.keys(data).length === 0) throw badInput([{ path: [], message: 'expected at least one value to change' }])
    // A token was given for the server that it was given for: at another address it must be given again.
    if (changes.endpoint !== undefined) {
      await tx.$queryRaw`SELECT app.forget_service_credentials(${id}::uuid)::text`
    }
    return tx.service.update({ where: { id }, data: { ...data, version: { increment: 1 } }, select: { id: true } })
  },
  audit: ({ id }, { name, endpoint, credentialMode, credentialKind, enabled }) => ({
    action: 'service.updated',
    target: id,
    detail: JSON.parse(JSON.stringify({ name, endpoint, credentialMode, credentialKind, enabled })) as Record<
      string,
      string | boolean
    >,
  }),
})

export const deleteService = operation({
  name: 'deleteService',
  requires: allOf(scope('mcp:write'), stepUp),
  input: z.strictObject({ id: nodeId('Service') }),
  target: serviceTarget,
  run: ({ tx }, { id }) => tx.service.delete({ where: { id }, select: { id: true, slug: true } }),
  audit: ({ id, slug }) => ({ action: 'service.deleted', target: id, detail: { slug } }),
})

// Visible ASCII without spaces: it becomes a header value.
const serviceToken = z.string().regex(/^[\x21-\x7e]{8,8192}$/, 'expected 8 to 8192 printable characters without spaces')
const hintOf = (token: Secret): string => (token.reveal().length >= 16 ? token.reveal().slice(-4) : '')

export const storeServiceToken = operation({
  name: 'storeServiceToken',
  requires: scope('user:token'),
  input: z.strictObject({
    serviceId: nodeId('Service'),
    token: serviceToken
      .transform((text) => new Secret(text))
      .describe('What you hold at the upstream. It is sealed and never shown again.'),
  }),
  target: {
    noun: 'service',
    find: (tx, { serviceId }) =>
      tx.service.findFirst({ where: { id: serviceId }, select: { id: true, credentialMode: true } }),
  },
  run: async ({ tx, actor, platform }, { serviceId, token }) => {
    const { orgId, userId } = actingMember(actor)
    const ciphertext = platform.vault.seal('serviceToken', [orgId, userId, serviceId], token)
    const values = { ciphertext, hint: hintOf(token) }
    return tx.userToken.upsert({
      where: { userId_serviceId: { userId, serviceId } },
      create: { orgId, userId, serviceId, ...values },
      update: values,
      select: { id: true, serviceId: true },
    })
  },
  audit: ({ id, serviceId }) => ({ action: 'serviceToken.stored', target: id, detail: { serviceId } }),
})

export const deleteServiceToken = operation({
  name: 'deleteServiceToken',
  requires: scope('user:token'),
  input: z.strictObject({ serviceId: nodeId('Service') }),
  target: {
    noun: 'service token',
    find: (tx, { serviceId }, { actor }) =>
      tx.userToken.findFirst({ where: { serviceId, userId: actingMember(actor).userId }, select: { id: true } }),
  },
  run: async ({ tx, row }) =>
    tx.userToken.delete({ where: { id: row?.id ?? '' }, select: { id: true, serviceId: true } }),
  audit: ({ id, serviceId }) => ({ action: 'serviceToken.deleted', target: id, detail: { serviceId } }),
})

export const setToolAccess = operation({
  name: 'setToolAccess',
  requires: allOf(scope('mcp:admin'), stepUp),
  input: z.strictObject({
    serviceId: nodeId('Service'),
    tool: z.string().min(1).max(200),
    access: toolAccesses.nullable().describe('Null returns to the default.'),
  }),
  target: {
    noun: 'service',
    find: (tx, { serviceId }) => tx.service.findFirst({ where: { id: serviceId }, select: { id: true } }),
  },
  run: async ({ tx, actor }, { serviceId, tool, access }) => {
    const { orgId } = actingMember(actor)
    await tx.toolPolicy.deleteMany({ where: { serviceId, tool } })
    if (access) await tx.toolPolicy.create({ data: { orgId, serviceId, tool, access }, select: { id: true } })
    return { id: serviceId }
  },
  audit: ({ id }, { tool, access }) => ({
    action: 'tool.accessSet',
    target: id,
    detail: { tool, access: access ?? 'DEFAULT' },
  }),
})

export const trustService = operation({
  name: 'trustService',
  requires: allOf(scope('mcp:admin'), stepUp),
  input: z.strictObject({
    id: nodeId('Service'),
    trusted: z.boolean().describe('Believe the hints that it gives about its own tools.'),
  }),
  target: serviceTarget,
  run: ({ tx }, { id, trusted }) =>
    tx.service.update({ where: { id }, data: { trusted, version: { increment: 1 } }, select: { id: true } }),
  audit: ({ id }, { trusted }) => ({ action: 'service.trustSet', target: id, detail: { trusted } }),
})

export const storeSharedToken = operation({
  name: 'storeSharedToken',
  requires: allOf(scope('mcp:admin'), stepUp),
  input: z.strictObject({ serviceId: nodeId('Service'), token: serviceToken.transform((text) => new Secret(text)) }),
  target: {
    noun: 'service',
    find: (tx, { serviceId }) => tx.service.findFirst({ where: { id: serviceId }, select: { id: true } }),
  },
  run: async ({ tx, actor, platform }, { serviceId, token }) => {
    const { orgId } = actingMember(actor)
    const values = {
      ciphertext: platform.vault.seal('serviceToken', [orgId, 'shared', serviceId], token),
      hint: hintOf(token),
    }
    await tx.sharedToken.upsert({
      where: { serviceId },
      create: { serviceId, orgId, ...values },
      update: values,
      select: { serviceId: true },
    })
    return { id: serviceId }
  },
  audit: ({ id }) => ({ action: 'sharedToken.stored', target: id }),
})

import { builder } from '../../graphql/builder.ts'
import { expose } from '../../graphql/expose.ts'
import { inherited } from '../../graphql/rules.ts'
import { scope } from '../../kernel/rule.ts'
import { memberOf } from '../organizations/schema.ts'
import { Service } from '../services/schema.ts'
import { redirectUri } from './clients.ts'
import type { Begun } from './connect.ts'
import * as operations from './operations.ts'

const OAuthConnection = builder.prismaObject('OauthConnection', {
  name: 'OAuthConnection',
  description: 'An account at an upstream, connected by OAuth. Its tokens are never shown.',
  select: { id: true },
  fields: (t) => ({
    issuer: t.exposeString('issuer', {
      rule: inherited,
      nullable: false,
      description: 'The authorization server that gave the tokens.',
    }),
    scope: t.exposeString('scope', {
      rule: inherited,
      description: 'What was granted, as the authorization server writes it.',
    }),
    expiresAt: t.expose('expiresAt', {
      type: 'DateTime',
      rule: inherited,
      description: 'End of the access token; it is renewed by itself where the server allows it.',
    }),
    mustReconnect: t.boolean({
      rule: inherited,
      nullable: false,
      description: 'The authorization server ended the connection: connect again.',
      select: { brokenAt: true },
      resolve: ({ brokenAt }) => brokenAt !== null,
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: inherited, nullable: false }),
  }),
})

const OAuthClient = builder.prismaObject('OauthClient', {
  name: 'OAuthClient',
  description: 'The client that an administrator registered at an authorization server. Its secret is never shown.',
  select: { id: true },
  fields: (t) => ({
    issuer: t.exposeString('issuer', { rule: inherited, nullable: false }),
    clientId: t.exposeString('clientId', { rule: inherited, nullable: false }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: inherited, nullable: false }),
  }),
})

// findUnique, since Prisma joins those of one request and one tick: a list of services costs one statement more for each.
builder.prismaObjectFields(Service, (t) => ({
  oauthConnection: t.prismaField({
    type: OAuthConnection,
    rule: scope('user:token'),
    nullable: true,
    description: 'Your own connected account, if you have one.',
    resolve: (query, { id: serviceId }, _args, context) =>
      context.tx.oauthConnection.findUnique({
        ...query,
        where: { serviceId_userId: { userId: memberOf(context).userId, serviceId } },
      }),
  }),
  sharedOAuthConnection: t.prismaField({
    type: OAuthConnection,
    rule: scope('mcp:admin'),
    nullable: true,
    description: 'The organisation’s connected account, if there is one.',
    resolve: (query, { id: sharedServiceId }, _args, context) =>
      context.tx.oauthConnection.findUnique({ ...query, where: { sharedServiceId } }),
  }),
  oauthClient: t.prismaField({
    type: OAuthClient,
    rule: scope('mcp:admin'),
    nullable: true,
    description: 'The registered client, if an administrator entered one.',
    resolve: (query, { id: registeredServiceId }, _args, context) =>
      context.tx.oauthClient.findUnique({ ...query, where: { registeredServiceId } }),
  }),
  oauthRedirectUri: t.string({
    rule: scope('mcp:write'),
    nullable: false,
    description: 'Where authorization servers send browsers back to; needed to register a client.',
    select: { id: true },
    resolve: ({ id }, _args, { platform }) => redirectUri(platform.publicUrl, id),
  }),
}))

const ConnectionBegun = builder.objectRef<Begun>('ConnectionBegun').implement({
  description:
    'What remains to be done: the user visits the address, and the answer goes to `completeServiceConnection`.',
  fields: (t) => ({
    authorizationUrl: t.exposeString('authorizationUrl', {
      rule: inherited,
      nullable: false,
      description: 'The page of the authorization server; for the user who asked, in the browser they asked from.',
    }),
    expiresAt: t.expose('expiresAt', {
      type: 'DateTime',
      rule: inherited,
      nullable: false,
      description: 'Until when the answer must be here.',
    }),
  }),
})

const byId = ({ id }: { id: string }) => ({ id }) as never
// Each asks servers elsewhere.
const cost = { weight: 50 }

expose(operations.connectService, {
  type: ConnectionBegun,
  cost,
  description: 'Begins to connect your own account at a service whose credentials are OAuth.',
})
expose(operations.connectSharedService, {
  type: ConnectionBegun,
  cost,
  description: 'Begins to connect the organisation’s account at a service.',
})
expose(operations.completeServiceConnection, {
  type: Service,
  cost,
  resolve: byId,
  description:
    'Ends what connectService began, with what the browser brought back. Only the user who began it can, in the same session.',
})
expose(operations.disconnectService, {
  type: Service,
  resolve: byId,
  description: 'Forgets your own account, and revokes its tokens where the authorization server allows it.',
})
expose(operations.disconnectSharedService, {
  type: Service,
  resolve: byId,
  description: 'Forgets the organisation’s account, and revokes its tokens where the authorization server allows it.',
})
expose(operations.setOAuthClient, {
  type: Service,
  resolve: byId,
  description: 'Enters the client that you registered at the authorization server of a service.',
})
expose(operations.removeOAuthClient, {
  type: Service,
  resolve: byId,
  description: 'Forgets the registered client, and the accounts that were connected through it.',
})

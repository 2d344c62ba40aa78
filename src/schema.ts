import { specifiedDirectives, type GraphQLSchema } from 'graphql'
import { builder } from './graphql/builder.ts'
import { costDirectives, ruleDirectives } from './graphql/directives.ts'
import './modules/accounts/schema.ts'
import './modules/accounts/factorsSchema.ts'
import './modules/sessions/stepUpSchema.ts'
import './modules/accounts/verificationSchema.ts'
import './modules/sessions/schema.ts'
import './modules/organizations/schema.ts'
import './modules/organizations/membersSchema.ts'
import './modules/organizations/viewerSessions.ts'
import './modules/apiKeys/schema.ts'
import './modules/services/schema.ts'
import './modules/services/hostedSchema.ts'
import './modules/connections/schema.ts'
import './modules/gateway/schema.ts'
import './modules/gateway/recordsSchema.ts'
import './modules/gateway/clientSchema.ts'
import './modules/persisted/schema.ts'
import './modules/audit/schema.ts'

/** The one schema of the platform. Building it fails when any field, argument or input lacks a rule. */
export const buildSchema = (): GraphQLSchema =>
  builder.toSchema({ sortSchema: false, directives: [...specifiedDirectives, ...ruleDirectives, ...costDirectives] })

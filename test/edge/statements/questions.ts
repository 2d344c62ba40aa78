import { encodeNodeId } from '../../../src/kernel/nodeId.ts'
import { asksOfAccounts } from './asksOfAccounts.ts'
import { asksOfServices } from './asksOfServices.ts'
import { everythingOf, page, type Asked, type Kind } from './documents.ts'
import { admin, type Stage } from './stage.ts'

/** Makes ready what a question needs, and puts it. */
export type Question = (stage: Stage) => Promise<Asked> | Asked

const asAdmin: Question = async (stage) => ({ as: await admin(stage) })
const serviceOf = ({ town }: Stage, who = 'admin'): string => town.inhabitants.get(who)?.rows.get('Service')?.[0] ?? ''
const slugOf = (stage: Stage): string => `s-${serviceOf(stage).slice(0, 8)}`
const documents = ({ copies }: Stage): string[] =>
  Array.from({ length: copies }, (_, n) => `query Q${n} { services(first: ${n + 1}) { edges { node { id } } } }`)

/** Each root field of the schema, once at least; what follows a dot tells a second question about the same field apart. */
export const questions: Record<Kind, Record<string, Question>> = {
  query: {
    apiKeys: asAdmin,
    apiVersion: () => ({}),
    auditTrail: asAdmin,
    clientConfiguration: async (stage) => ({ as: await admin(stage), given: '(client: CURSOR)' }),
    'clientConfiguration · of a service': async (stage) => ({ as: await admin(stage), given: `(client: CURSOR, service: "${slugOf(stage)}")` }),
    collections: asAdmin,
    hostedServices: asAdmin,
    minimalScopes: async (stage) => ({ as: await admin(stage), given: `(documents: ${JSON.stringify(documents(stage))})` }),
    node: async (stage) => ({
      as: await admin(stage),
      given: `(id: "${encodeNodeId('Organization', stage.org.id)}")`,
      selection: `{ ... on Organization ${everythingOf('Organization')} }`,
    }),
    organization: asAdmin,
    persistedOperations: asAdmin,
    requestLog: asAdmin,
    secondFactors: asAdmin,
    service: async (stage) => ({ as: await admin(stage), given: `(slug: "${slugOf(stage)}")` }),
    services: asAdmin,
    'services · with their tools': async (stage) => ({ as: await admin(stage), given: `(first: ${page})`, selection: '{ edges { node { slug tools { name } } } }' }),
    usage: asAdmin,
    viewer: asAdmin,
  },
  mutation: { ...asksOfAccounts, ...asksOfServices },
  subscription: {
    calls: async (stage) => ({ as: await admin(stage), headers: { accept: 'text/event-stream' } }),
  },
} // prettier-ignore

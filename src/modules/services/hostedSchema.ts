import { builder } from '../../graphql/builder.ts'
import { expose } from '../../graphql/expose.ts'
import { inherited } from '../../graphql/rules.ts'
import { scope } from '../../kernel/rule.ts'
import { enableHostedService, offers, type Offer } from './hosted.ts'
import { Service } from './schema.ts'

const HostedServiceOffer = builder.objectRef<Offer>('HostedServiceOffer').implement({
  description: 'An MCP server that the operator runs as a process, for each user of an organisation that enables it.',
  fields: (t) => ({
    name: t.exposeString('name', { rule: inherited, nullable: false }),
    title: t.exposeString('title', { rule: inherited, nullable: false }),
    description: t.exposeString('description', { rule: inherited, nullable: false }),
    needsCredential: t.exposeBoolean('needsCredential', {
      rule: inherited,
      nullable: false,
      description: 'Whether it is given a token of its user or of the organisation.',
    }),
  }),
})

builder.queryField('hostedServices', (t) =>
  t.field({
    type: [HostedServiceOffer],
    rule: scope('mcp:admin'),
    nullable: false,
    cost: { weight: 1, assumedSize: 50 },
    description: 'What the operator’s catalogue offers.',
    resolve: (_root, _args, { platform }) => offers(platform),
  }),
)

expose(enableHostedService, { type: Service, description: 'Takes a service of the operator’s catalogue into use.' })

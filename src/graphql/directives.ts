import { DirectiveLocation, GraphQLDirective, GraphQLList, GraphQLNonNull, GraphQLString } from 'graphql'

const locations = [
  DirectiveLocation.FIELD_DEFINITION,
  DirectiveLocation.ARGUMENT_DEFINITION,
  DirectiveLocation.INPUT_FIELD_DEFINITION,
]
const anyOfAllOf = new GraphQLNonNull(
  new GraphQLList(new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(GraphQLString)))),
)

/** The names that Apollo Router, Hive and Cosmo read, so that a gateway in front of this API could enforce the same rules. */
export const ruleDirectives = [
  new GraphQLDirective({ name: 'authenticated', description: 'A signed-in caller.', locations }),
  new GraphQLDirective({
    name: 'requiresScopes',
    description: 'All scopes of one of the lists.',
    locations,
    args: { scopes: { type: anyOfAllOf } },
  }),
  new GraphQLDirective({
    name: 'policy',
    description: 'All policies of one of the lists.',
    locations,
    args: { policies: { type: anyOfAllOf } },
  }),
]

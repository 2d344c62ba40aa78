import {
  DirectiveLocation,
  GraphQLBoolean,
  GraphQLDirective,
  GraphQLInt,
  GraphQLList,
  GraphQLNonNull,
  GraphQLString,
} from 'graphql'

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

const names = new GraphQLList(new GraphQLNonNull(GraphQLString))

/** What a field costs, in the terms of the GraphQL cost specification (ibm.github.io/graphql-specs/cost-spec.html). */
export const costDirectives = [
  new GraphQLDirective({
    name: 'cost',
    description: 'Weight of one resolution. Default: 1 for an object, 0 for a scalar.',
    locations: [
      DirectiveLocation.ARGUMENT_DEFINITION,
      DirectiveLocation.ENUM,
      DirectiveLocation.FIELD_DEFINITION,
      DirectiveLocation.INPUT_FIELD_DEFINITION,
      DirectiveLocation.OBJECT,
      DirectiveLocation.SCALAR,
    ],
    args: { weight: { type: new GraphQLNonNull(GraphQLString) } },
  }),
  new GraphQLDirective({
    name: 'listSize',
    description: 'How many items a list gives: its slicing argument, else what is assumed.',
    locations: [DirectiveLocation.FIELD_DEFINITION],
    args: {
      assumedSize: { type: GraphQLInt },
      slicingArguments: { type: names },
      sizedFields: { type: names },
      requireOneSlicingArgument: { type: GraphQLBoolean, defaultValue: true },
    },
  }),
]

import { getNamedType, isInterfaceType, isLeafType, isObjectType, type GraphQLField, type GraphQLSchema } from 'graphql'
import { inherited, ruleOf, type FieldExtensions, type FieldRule } from './graphql/rules.ts'
import { scopeCatalogue, scopes } from './kernel/permissions.ts'

const describe = (rule: FieldRule | undefined): string => {
  if (rule === inherited) return '↑'
  if (!rule) return '?'
  if (rule.public) return 'public'
  const parts = [
    ...rule.scopes.map((scope) => `\`${scope}\``),
    ...(rule.role ? [`role ≥ ${rule.role}`] : []),
    ...(rule.row ? [`policy ${rule.row.name}`] : []),
    ...(rule.stepUp ? ['fresh second factor'] : []),
    ...(rule.row?.belongs?.others ? [`on another person’s row ${describe(rule.row.belongs.others)}`] : []),
  ]
  return parts.join(' + ') || 'any credential'
}

const row = (field: GraphQLField<unknown, unknown>): string => {
  const { cost, dataClass = 'internal' } = field.extensions as FieldExtensions
  const weight = cost?.weight ?? (isLeafType(getNamedType(field.type)) ? 0 : 1)
  const size = cost?.assumedSize ? ` × ${cost.assumedSize}` : ''
  const guarded = field.args.filter((argument) => ruleOf(argument) !== inherited)
  const withArguments = guarded.map((argument) => `; \`${argument.name}:\` ${describe(ruleOf(argument))}`).join('')
  return `| ${field.name} | ${describe(ruleOf(field))}${withArguments} | ${dataClass} | ${weight}${size} |`
}

/** The page that lists every field with who may read it, how sensitive it is and what it costs. */
export function authorizationPage(schema: GraphQLSchema): string {
  const types = Object.values(schema.getTypeMap()).filter(
    (type) => (isObjectType(type) || isInterfaceType(type)) && !type.name.startsWith('__'),
  )
  const scopeRows = scopes.map(
    (scope) => `| \`${scope}\` | ${scopeCatalogue[scope].meaning} | ${scopeCatalogue[scope].from} |`,
  )
  const sections = types.map((type) =>
    [
      `## ${type.name}`,
      '',
      '| field | who | data | cost |',
      '|---|---|---|---|',
      ...('getFields' in type
        ? Object.values(type.getFields()).map((field) => row(field as GraphQLField<unknown, unknown>))
        : []),
      '',
    ].join('\n'),
  )
  return [
    '# Who may do what',
    '',
    'Printed from the schema by `npm run generate`; the rules in it are the ones that are enforced.',
    '`↑`: whoever may read the field that leads here. Every caller is also bound to one organisation, and row level',
    'security in the database filters every row once more. A credential holds what its role allows ∩ what it was given.',
    '',
    '| scope | meaning | from role |',
    '|---|---|---|',
    ...scopeRows,
    '',
    ...sections,
  ].join('\n')
}

/** The walls of the house: a floor imports only from floors below it; modules know only those before them. */
const modules = [
  'accounts',
  'sessions',
  'organizations',
  'apiKeys',
  'services',
  'connections',
  'gateway',
  'persisted',
  'audit',
  'security',
  'privacy',
]

const forbid = (name, comment, from, to) => ({ name, comment, severity: 'error', from, to })

const floors = [
  forbid(
    'edge-below-processes',
    'The edge knows no process.',
    { path: '^src/edge/' },
    { path: '^src/(main|cli|administration|listen|compose|schema|printSchema)\\.ts$' },
  ),
  forbid(
    'modules-below-edge',
    'A module knows no door.',
    { path: '^src/modules/' },
    { path: '^src/(edge|demo)/|^src/[^/]+\\.ts$' },
  ),
  forbid(
    'language-below-modules',
    'The language knows no noun.',
    { path: '^src/graphql/' },
    { path: '^src/(modules|edge|demo)/|^src/[^/]+\\.ts$' },
  ),
  forbid(
    'kernel-at-the-ground',
    'The kernel stands on nothing but settings and generated code.',
    { path: '^src/kernel/' },
    { path: '^src/(graphql|modules|edge|demo)/|^src/(?!config\\.ts)[^/]+\\.ts$' },
  ),
  forbid(
    'config-alone',
    'Settings know nobody.',
    { path: '^src/(config|catalogue)\\.ts$' },
    { path: '^src/', pathNot: '^src/catalogue\\.ts$' },
  ),
]

const order = modules.map((module, i) =>
  forbid(
    `${module}-knows-only-earlier-modules`,
    'Modules are reached in one direction.',
    { path: `^src/modules/${module}/` },
    { path: `^src/modules/(${modules.slice(i + 1).join('|') || '-'})/` },
  ),
)

const contents = [
  forbid(
    'modules-by-their-front-door',
    'Another module is reached through its operations, policy, queries or schema.',
    { path: '^src/modules/([^/]+)/' },
    {
      path: '^src/modules/',
      pathNot: [
        '^src/modules/$1/',
        '/(operations|policy|queries|schema|toolPolicy|tokens|keyring|format|factors|factorsLacking|factorsSchema|challenges|secondStep|passwords|passwordStrength|verification|verificationTokens|refresh|list)\\.ts$',
      ],
    },
  ),
  forbid(
    'verbs-speak-no-language',
    'Operations and policies know no GraphQL.',
    { path: '^src/modules/[^/]+/(?!.*[sS]chema).*\\.ts$' },
    { path: '(^|/)node_modules/(graphql|graphql-yoga|@pothos)/' },
  ),
  forbid(
    'one-database-client',
    'Prisma’s client is the database door’s.',
    { path: '^src/', pathNot: '^src/kernel/database/' },
    { path: '^src/generated/prisma/client', dependencyTypesNot: ['type-only'] },
  ),
  forbid(
    'one-way-out',
    'Outgoing HTTP is the outbound door’s.',
    {
      path: '^src/',
      pathNot: ['^src/kernel/(outbound|redirects|addresses)', '^src/edge/graphiql/', '^src/pushOperations'],
    },
    { path: '(^|/)node_modules/undici/' },
  ),
  forbid('no-circles', 'A circle hides two concepts in one.', {}, { circular: true }),
]

export default {
  forbidden: [...floors, ...order, ...contents],
  options: {
    doNotFollow: { path: 'node_modules|^src/generated/' },
    exclude: { path: '^src/edge/graphiql/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default', 'types'] },
  },
}

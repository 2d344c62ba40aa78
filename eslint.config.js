import noSecrets from 'eslint-plugin-no-secrets'
import security from 'eslint-plugin-security'
import tseslint from 'typescript-eslint'

// The plugin's own list only warns, and a warning stops nobody.
const securityRules = Object.fromEntries(Object.keys(security.configs.recommended.rules).map((rule) => [rule, 'error']))

/** What is random enough to be a key (above the entropy of any name), or has a form that keys are given. */
const secrets = {
  tolerance: 4.3,
  additionalDelimiters: [/[.()/]/],
  additionalRegexes: {
    'key in hexadecimal': /\b[0-9a-f]{32,}\b/i,
    'private key': /-----BEGIN [A-Z ]*PRIVATE KEY-----/,
    'JSON Web Token': /eyJ[\w-]{10,}\.eyJ[\w-]{10,}/,
    'API key of this platform': /mcp_sk_\w{30,}/,
    'token of GitHub': /gh[pousr]_\w{30,}|github_pat_\w{30,}/,
  },
}

const databaseDoor = 'Only the database door of the kernel holds a client.'

export default tseslint.config(
  { ignores: ['dist/**', 'src/generated/**', 'test/generated/**', '.data/**', 'coverage/**'] },
  ...tseslint.configs.recommendedTypeChecked,
  { plugins: { security, 'no-secrets': noSecrets } },
  {
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    languageOptions: {
      parserOptions: {
        projectService: {
          allowDefaultProject: [
            'bin/*.js',
            'bench/peers/*.mjs',
            'eslint.config.js',
            '.dependency-cruiser.js',
            'test/gateway/peers/*.mjs',
          ],
        },
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      ...securityRules,
      'no-secrets/no-secrets': ['error', secrets],
      eqeqeq: 'error',
      'no-console': 'error',
      'no-eval': 'error',
      'no-implied-eval': 'error',
      'no-new-func': 'error',
      'no-restricted-globals': ['error', { name: 'fetch', message: 'Outgoing calls go through platform.outbound.' }],
      'no-restricted-properties': [
        'error',
        { object: 'process', property: 'env', message: 'Settings are read in src/config.ts alone.' },
        { object: 'Math', property: 'random', message: 'Use node:crypto.' },
      ],
      'no-restricted-syntax': [
        'error',
        { selector: "NewExpression[callee.name='PrismaClient']", message: databaseDoor },
      ],
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/unbound-method': 'off',
      '@typescript-eslint/no-misused-promises': ['error', { checksVoidReturn: false }],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/consistent-type-imports': ['error', { disallowTypeAnnotations: false }],
      // These flag every indexed access and every computed path; bounds are checked by noUncheckedIndexedAccess and by review.
      'security/detect-object-injection': 'off',
      'security/detect-non-literal-fs-filename': 'off',
      // Two rules disagree about the same line where a cast narrows an unknown for a rejection; the compiler decides.
      '@typescript-eslint/no-unnecessary-type-assertion': 'off',
    },
  },
  { files: ['src/config.ts'], rules: { 'no-restricted-properties': 'off' } },
  { files: ['src/kernel/database/door.ts', 'bench/unguarded.ts'], rules: { 'no-restricted-syntax': 'off' } },
  {
    files: ['bin/**', 'test/**', 'bench/**', 'src/edge/graphiql/**', '*.config.ts', '*.js'],
    rules: { 'no-restricted-properties': 'off', 'no-restricted-globals': 'off' },
  },
  { files: ['bin/**', '*.js', '**/*.mjs'], ...tseslint.configs.disableTypeChecked },
  {
    files: ['test/**', 'bench/**'],
    rules: {
      // Answers of a GraphQL document that a test writes inline have no type of their own.
      '@typescript-eslint/no-explicit-any': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      // Tests start processes, look for what they made up themselves, and compare passwords that they chose: no input is a stranger's.
      'security/detect-child-process': 'off',
      'security/detect-non-literal-regexp': 'off',
      'security/detect-possible-timing-attacks': 'off',
    },
  },
)

import neostandard from 'neostandard'
import tseslint from 'typescript-eslint'

/** Imports that a folder must not make: arrows run routes → domain → stores, and only app.ts and commands see everything. */
const walls = [
  { files: ['src/routes/**'], forbidden: ['**/stores/**', '**/commands/**', '**/config.js'] },
  { files: ['src/domain/**'], forbidden: ['**/routes/**', '**/plugins/**', '**/schemas/**', '**/commands/**', '**/config.js', 'fastify', '@fastify/*'] },
  { files: ['src/stores/**'], forbidden: ['**/routes/**', '**/plugins/**', '**/schemas/**', '**/commands/**', '**/config.js', 'fastify', '@fastify/*'] },
  { files: ['src/schemas/**'], forbidden: ['**/routes/**', '**/plugins/**', '**/stores/**', '**/commands/**', '**/config.js'] }
]

export default [
  { ignores: ['dist/', '.tap/', 'storage/'] },
  ...neostandard({ ts: true, noJsx: true }),
  {
    files: ['**/*.ts'],
    plugins: { '@typescript-eslint': tseslint.plugin },
    languageOptions: { parser: tseslint.parser, parserOptions: { project: './tsconfig.json' } },
    rules: {
      'no-void': ['error', { allowAsStatement: true }],
      '@typescript-eslint/no-explicit-any': 'error',
      // A test is awaited by tap itself.
      '@typescript-eslint/no-floating-promises': ['error', { allowForKnownSafeCalls: [{ from: 'package', name: 'test', package: '@tapjs/test' }] }],
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/await-thenable': 'error',
      '@typescript-eslint/no-unnecessary-type-assertion': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-non-null-assertion': 'error'
    }
  },
  ...walls.map(({ files, forbidden }) => ({
    files,
    rules: { 'no-restricted-imports': ['error', { patterns: [{ group: forbidden, message: 'The walls of this house are in eslint.config.js.' }] }] }
  })),
  {
    files: ['src/**'],
    ignores: ['src/config.ts', 'src/main.ts'],
    rules: { 'no-restricted-syntax': ['error', { selector: "MemberExpression[object.name='process'][property.name='env']", message: 'Only config.ts reads the environment.' }] }
  },
  {
    files: ['src/domain/**', 'src/stores/**', 'src/routes/**', 'src/plugins/**'],
    rules: {
      'no-restricted-properties': ['error', { object: 'Date', property: 'now', message: 'Time comes from the clock that was passed in.' }]
    }
  }
]

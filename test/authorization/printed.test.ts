import { printSchemaWithDirectives } from '@graphql-tools/utils'
import { lexicographicSortSchema } from 'graphql'
import { readFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { authorizationPage } from '../../src/printAuthorization.ts'
import { buildSchema } from '../../src/schema.ts'

const schema = lexicographicSortSchema(buildSchema())
const committed = (path: string): Promise<string> => readFile(new URL(`../../${path}`, import.meta.url), 'utf8')

/** Whoever loosens a rule changes these pages with it, where a reviewer reads them; without that, this is red. */
describe('the rules as they are printed', () => {
  it('stand in docs/authorization.md as they are enforced', async () => {
    expect(authorizationPage(schema)).toBe(await committed('docs/authorization.md'))
  })

  it('stand in schema.graphql as they are enforced', async () => {
    expect(`${printSchemaWithDirectives(schema)}\n`).toBe(await committed('schema.graphql'))
  })
})

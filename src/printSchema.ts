import { printSchemaWithDirectives } from '@graphql-tools/utils'
import { lexicographicSortSchema } from 'graphql'
import { mkdir, writeFile } from 'node:fs/promises'
import { authorizationPage } from './printAuthorization.ts'
import { buildSchema } from './schema.ts'

const schema = lexicographicSortSchema(buildSchema())
await writeFile('schema.graphql', `${printSchemaWithDirectives(schema)}\n`)
await mkdir('docs', { recursive: true })
await writeFile('docs/authorization.md', authorizationPage(schema))

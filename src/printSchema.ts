import { printSchemaWithDirectives } from '@graphql-tools/utils'
import { lexicographicSortSchema } from 'graphql'
import { writeFile } from 'node:fs/promises'
import { buildSchema } from './schema.ts'

await writeFile('schema.graphql', `${printSchemaWithDirectives(lexicographicSortSchema(buildSchema()))}\n`)

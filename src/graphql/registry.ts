import { parse, validate, type GraphQLSchema } from 'graphql'
import { badInput } from '../kernel/errors.ts'
import type { Platform } from '../kernel/platform.ts'
import { analyse, type Analysis } from './analysis.ts'
import { withoutSuggestions } from './suggestions.ts'

const schemas = new WeakMap<Platform, GraphQLSchema>()

/** Tells the language floor which schema an instance serves. */
export const provideSchema = (platform: Platform, schema: GraphQLSchema): void => void schemas.set(platform, schema)

/**
 * Parses and validates a document that is to be registered, and analyses it at its worst case. It must hold exactly one
 * operation, so that its hash names one thing to run.
 */
export function analyseDocument(platform: Platform, text: string, path: (string | number)[] = ['document']): Analysis {
  const schema = schemas.get(platform)
  if (!schema) throw new Error('No schema was provided.')
  let document
  try {
    document = parse(text, { maxTokens: 2000 })
  } catch (cause) {
    throw badInput([{ path, message: 'expected a GraphQL document of at most 2000 tokens' }], cause)
  }
  const errors = validate(schema, document)
  if (errors.length) throw badInput(errors.map(({ message }) => ({ path, message: withoutSuggestions(message) })))
  return analyse(schema, document, null, null)
}

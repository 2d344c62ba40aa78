import type { InputFieldRef, InputRef } from '@pothos/core'
import { z } from 'zod'
import { builder } from './builder.ts'
import { inherited } from './rules.ts'

/**
 * GraphQL input types made from the zod schema of an operation, so that an input has one description. Every field
 * inherits the rule of the mutation it belongs to.
 */
type Shape = Record<string, z.ZodType>
type NamedType = string | InputRef<unknown> | [string | InputRef<unknown>]

const enums = new Map<z.ZodType, InputRef<unknown>>()

/** Makes a zod enum known to the schema under a name, for inputs and outputs alike. */
export function enumType<const Values extends Record<string, string>>(
  name: string,
  schema: z.ZodEnum<Values>,
  description: string,
) {
  const ref = builder.enumType(name, { values: schema.options, description })
  enums.set(schema, ref)
  return ref
}

function unwrap(schema: z.ZodType): { inner: z.ZodType; required: boolean } {
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault
  )
    return { inner: unwrap(schema.unwrap() as z.ZodType).inner, required: false }
  if (schema instanceof z.ZodPipe && schema.in instanceof z.ZodType && !(schema.in instanceof z.ZodTransform)) {
    const inner = unwrap(schema.in)
    return schema.meta()?.['graphql'] ? { inner: schema, required: inner.required } : inner
  }
  return { inner: schema, required: true }
}

function typeOf(owner: string, field: string, schema: z.ZodType): NamedType {
  const named = schema.meta()?.['graphql']
  if (typeof named === 'string') return named
  const known = enums.get(schema)
  if (known) return known
  if (schema instanceof z.ZodArray) {
    const item = typeOf(owner, field, unwrap(schema.element as z.ZodType).inner)
    if (!Array.isArray(item)) return [item]
  }
  if (schema instanceof z.ZodObject)
    return inputObject(`${owner}${field[0]?.toUpperCase()}${field.slice(1)}`, schema.shape)
  // An enum without a name here has values that GraphQL could not spell (scopes); zod checks them.
  if (schema instanceof z.ZodEnum || schema instanceof z.ZodString || schema instanceof z.ZodStringFormat)
    return 'String'
  if (schema instanceof z.ZodBoolean) return 'Boolean'
  if (schema instanceof z.ZodNumber) return 'Int'
  if (schema instanceof z.ZodDate) return 'DateTime'
  throw new Error(
    `${owner}.${field}: no GraphQL input type is known for this schema. Add .meta({ graphql: '…' }) or an enumType().`,
  )
}

function inputObject(name: string, shape: Shape): InputRef<unknown> {
  return builder.inputType(name, {
    fields: (t) =>
      Object.fromEntries(
        Object.entries(shape).map(([field, schema]) => {
          const { inner, required } = unwrap(schema)
          const description = schema.description ?? inner.description
          const options = {
            type: typeOf(name, field, inner),
            required,
            rule: inherited,
            ...(description ? { description } : {}),
          }
          return [
            field,
            (t.field as unknown as (o: typeof options) => InputFieldRef<typeof builder.$inferSchemaTypes, unknown>)(
              options,
            ),
          ]
        }),
      ),
  })
}

/** The input type of an operation, named after it. */
export function inputFor(
  operationName: string,
  schema: z.ZodType,
  without: readonly string[] = [],
): InputRef<unknown> | null {
  if (!(schema instanceof z.ZodObject)) throw new Error(`${operationName}: the input of an operation is an object.`)
  const shape = Object.fromEntries(Object.entries(schema.shape).filter(([field]) => !without.includes(field)))
  if (Object.keys(shape).length === 0) return null
  return inputObject(`${operationName[0]?.toUpperCase()}${operationName.slice(1)}Input`, shape)
}

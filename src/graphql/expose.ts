import type { FieldRef, OutputRef } from '@pothos/core'
import type { Operation } from '../kernel/operation.ts'
import { builder } from './builder.ts'
import type { GraphContext } from './context.ts'
import { inputFor } from './input.ts'
import { inherited, type Cost } from './rules.ts'

type Types = typeof builder.$inferSchemaTypes

/** Runs an operation as the caller of this request. */
export const perform = <Input, Output>(
  operation: Operation<Input, Output>,
  input: unknown,
  { actor, platform, signal }: GraphContext,
): Promise<Output> => operation.run({ actor, platform, signal }, input)

type Options<Output, Shape> = {
  type: OutputRef<Shape>
  description: string
  /** What the field's object is made of, where it is not the operation's own result. */
  resolve?: (output: Output, context: GraphContext) => Shape | Promise<Shape>
  changesActor?: boolean
  /** Values of the input that the request itself gives (a cookie), so that no document can. */
  fromRequest?: Record<string, (context: GraphContext) => unknown>
  cost?: Cost
}

/** A mutation field that is an operation: its rule, its input and its work come from there, and nothing is added here. */
export function expose<Input, Output, Shape>(
  operation: Operation<Input, Output>,
  options: Options<Output, Shape>,
): void {
  const { type, description, changesActor = false, cost = { weight: 10 }, fromRequest = {} } = options
  const input = inputFor(operation.name, operation.input, Object.keys(fromRequest))
  builder.mutationField(operation.name, (t) =>
    (t.field as unknown as (field: object) => FieldRef<Types, unknown, 'Mutation'>)({
      type,
      nullable: true,
      description,
      rule: operation.requires,
      changesActor,
      cost,
      args: input ? { input: t.arg({ type: input, required: true, rule: inherited }) } : {},
      resolve: async (_root: unknown, args: { input?: unknown }, context: GraphContext) => {
        const given = Object.entries(fromRequest).map(([name, read]) => [name, read(context)] as const)
        const output = await perform(operation, { ...(args.input ?? {}), ...Object.fromEntries(given) }, context)
        return options.resolve ? options.resolve(output, context) : output
      },
    }),
  )
}

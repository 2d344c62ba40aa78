import { z } from 'zod'

export type ManifestEntry = { document: string; clientId: string }

const apollo = z.looseObject({
  format: z.literal('apollo-persisted-query-manifest'),
  version: z.literal(1),
  operations: z.array(z.looseObject({ id: z.string(), body: z.string() })),
})

/** graphql-codegen's client preset and Relay's compiler write the same shape: id → document. */
const map = z.record(z.string(), z.string())

/** The documents of a manifest, whichever of the three tools wrote it. */
export function readManifest(value: unknown): ManifestEntry[] {
  const fromApollo = apollo.safeParse(value)
  if (fromApollo.success) return fromApollo.data.operations.map(({ id, body }) => ({ document: body, clientId: id }))
  const fromMap = map.safeParse(value)
  if (fromMap.success) return Object.entries(fromMap.data).map(([clientId, document]) => ({ document, clientId }))
  throw new TypeError('Expected a manifest of graphql-codegen (client preset), Apollo or Relay.')
}

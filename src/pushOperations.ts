import { request } from 'undici'
import { z } from 'zod'
import { pushDocumentId } from './modules/persisted/builtIn.ts'
import type { ManifestEntry } from './modules/persisted/manifest.ts'

const answerShape = z.object({
  data: z
    .object({
      registerPersistedOperations: z
        .object({
          operations: z.array(
            z.object({
              sha256: z.string(),
              name: z.string().nullable(),
              requiredScopes: z.array(z.string()),
              cost: z.number(),
            }),
          ),
        })
        .nullable(),
    })
    .nullish(),
  errors: z.array(z.object({ message: z.string() })).optional(),
})

/** Pushes a manifest to a platform, as a build does. The operator names the address, so it may well be a private one. */
export async function pushOperations(url: string, apiKey: string, operations: readonly ManifestEntry[]) {
  const { body } = await request(new URL('/graphql', url), {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${apiKey}` },
    body: JSON.stringify({ documentId: pushDocumentId, variables: { operations } }),
  })
  const { data, errors } = answerShape.parse(await body.json())
  const registered = data?.registerPersistedOperations
  if (!registered) throw new Error(errors?.map(({ message }) => message).join('\n') ?? 'The platform gave no answer.')
  return registered.operations
}

import type { Vault } from '../../kernel/vault.ts'
import type { Secret } from '../../kernel/secret.ts'
import type { Tokens } from './grants.ts'

/** Whose tokens: a user's id, or `shared` for the organisation's. */
export type Ownership = { orgId: string; owner: string; serviceId: string }

const boundTo = ({ orgId, owner, serviceId }: Ownership, kind: 'access' | 'refresh'): string[] => [orgId, owner, serviceId, kind] // prettier-ignore

export const sealTokens = (vault: Vault, of: Ownership, { access, refresh, expiresAt }: Tokens) => ({
  sealedAccess: vault.seal('serviceToken', boundTo(of, 'access'), access),
  sealedRefresh: refresh && vault.seal('serviceToken', boundTo(of, 'refresh'), refresh),
  expiresAt,
})

export const openToken = (vault: Vault, of: Ownership, kind: 'access' | 'refresh', sealed: string): Secret =>
  vault.open('serviceToken', boundTo(of, kind), sealed)

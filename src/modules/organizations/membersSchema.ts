import { builder } from '../../graphql/builder.ts'
import { expose } from '../../graphql/expose.ts'
import { inherited } from '../../graphql/rules.ts'
import type { Role } from '../../kernel/permissions.ts'
import { scope } from '../../kernel/rule.ts'
import { acceptInvitation, inviteMember, revokeInvitation } from './invitations.ts'
import { changeRole, deactivateMember, reactivateMember, removeMember } from './members.ts'
import { Membership, Organization, RoleEnum } from './schema.ts'

export const Invitation = builder.prismaNode('Invitation', {
  description: 'A person who was asked by mail to join an organisation.',
  id: { field: 'id', rule: scope('org:admin') },
  select: { id: true },
  fields: (t) => ({
    email: t.exposeString('email', { dataClass: 'personal', rule: scope('org:admin'), nullable: false }),
    role: t.expose('role', { type: RoleEnum, rule: scope('org:admin'), nullable: false }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: scope('org:admin'), nullable: false }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', rule: scope('org:admin'), nullable: false }),
    acceptedAt: t.expose('acceptedAt', { type: 'DateTime', rule: scope('org:admin'), nullable: true }),
    revokedAt: t.expose('revokedAt', { type: 'DateTime', rule: scope('org:admin'), nullable: true }),
  }),
})

// A look-up of its own: joined into the organisation's, it would name the column of the tokens' hashes, which nobody may read.
builder.prismaObjectField(Organization, 'invitations', (t) =>
  t.prismaConnection({
    type: Invitation,
    cursor: 'id',
    rule: scope('org:admin'),
    description: 'Newest first; accepted, revoked and expired ones included.',
    resolve: (query, organization, _args, { tx }) =>
      tx.invitation.findMany({ ...query, where: { orgId: organization.id }, orderBy: { id: 'desc' } }),
  }),
)

expose(inviteMember, {
  type: Invitation,
  description: 'Asks a person by mail to join, with a role of at most your own.',
})
expose(revokeInvitation, { type: Invitation, description: 'Takes an open invitation back.' })
expose(changeRole, {
  type: Membership,
  description: 'Gives a member another role; their credentials of the old one are refused at once.',
})
expose(deactivateMember, { type: Membership, description: 'Ends a member’s sessions and refuses their sign-in; data is kept.' }) // prettier-ignore
expose(reactivateMember, { type: Membership, description: 'Lets a deactivated member in again.' })

const RemovedMember = builder.objectRef<{ userId: string }>('RemovedMember').implement({
  description: 'A membership that is no more.',
  fields: (t) => ({
    userId: t.globalID({ rule: inherited, nullable: false, resolve: ({ userId }) => ({ type: 'User', id: userId }) }),
  }),
})
expose(removeMember, {
  type: RemovedMember,
  description:
    'Ends a membership, revokes its sessions and keys, deletes its service tokens and hands over what the member registered and whom they invited. Services stay.',
})

type Accepted = { name: string; slug: string; role: Role }
const AcceptedInvitation = builder.objectRef<Accepted>('AcceptedInvitation').implement({
  description: 'You are a member. Sign in with `organization` to act there.',
  fields: (t) => ({
    organizationName: t.exposeString('name', { rule: inherited, nullable: false }),
    organizationSlug: t.exposeString('slug', { rule: inherited, nullable: false }),
    role: t.expose('role', { type: RoleEnum, rule: inherited, nullable: false }),
  }),
})
expose(acceptInvitation, {
  type: AcceptedInvitation,
  description: 'Joins by the token of a mail: as the account of that address, or as a new one.',
})

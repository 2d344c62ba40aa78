import { builder } from '../../graphql/builder.ts'
import { scope } from '../../kernel/rule.ts'
import { person } from '../sessions/list.ts'
import { Session } from '../sessions/schema.ts'
import { Viewer } from './schema.ts'

builder.objectField(Viewer, 'sessions', (t) =>
  t.prismaConnection({
    type: Session,
    cursor: 'id',
    rule: scope('user:read'),
    description: 'Your sessions that stand, newest first, in every organisation. Not for API keys.',
    resolve: (query, viewer, _args, { tx, platform }) => {
      person(viewer)
      const standing = { revokedAt: null, expiresAt: { gt: platform.clock() } }
      return tx.session.findMany({ ...query, where: standing, orderBy: { id: 'desc' } })
    },
  }),
)

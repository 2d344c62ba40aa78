import { gaveFactor, isMember, type Actor, type Member } from './actor.ts'
import { AppError, notFound } from './errors.ts'
import {
  atLeastMask,
  authenticatedBit,
  freshMfaBit,
  interactiveBit,
  rank,
  scopesMask,
  type Role,
  type Scope,
} from './permissions.ts'

/** A named, pure decision about one row; it is told the row that the field's parent resolved to. */
export type RowPolicy<Row = never> = {
  name: string
  permits: (actor: Member, row: Row) => boolean
  /** Of rows that belong to people: whose a row is, and what an act on another's takes. Left out: the organisation's own. */
  belongs?: { to: (row: Row) => string; others: Rule | null }
}

/**
 * What a caller must hold. All parts must be met; there is no OR between scopes. One declaration with many readers:
 * the resolver check, the check before execution, the printed schema, errors, the generated documentation, operations.
 */
export type Rule = {
  readonly public: boolean
  /** The platform itself: the command line and its jobs. No credential that comes with a request suffices. */
  readonly platform: boolean
  readonly scopes: readonly Scope[]
  readonly role: Role | null
  /** A person with a fresh second factor; an API key never suffices. */
  readonly stepUp: boolean
  readonly row: RowPolicy | null
  /** The bits that all of the above, but the row policy, come to. */
  readonly mask: number
}

// A bit that no credential is ever given.
const unattainable = 1 << 30

const build = (parts: Partial<Omit<Rule, 'mask'>>): Rule => {
  const rule = { public: false, platform: false, scopes: [], role: null, stepUp: false, row: null, ...parts }
  const mask = rule.public
    ? 0
    : (rule.platform ? unattainable : 0) |
      authenticatedBit |
      scopesMask(rule.scopes) |
      (rule.role ? atLeastMask(rule.role) : 0) |
      (rule.stepUp ? interactiveBit | freshMfaBit : 0)
  return { ...rule, mask }
}

/** Said aloud: anybody, signed in or not. */
export const isPublic = build({ public: true })
/** The platform's own affairs, which belong to no organisation: the operator's command line and scheduled jobs alone. */
export const platformOnly = build({ platform: true })
/** Any credential that stands, whatever its scopes. */
export const authenticated = build({})
/** Every one of these scopes. */
export const scope = (first: Scope, ...more: Scope[]): Rule => build({ scopes: [first, ...more] })
export const atLeast = (role: Role): Rule => build({ role })
/** A second factor within the last ten minutes, by a person. */
export const stepUp = build({ stepUp: true })
/** The row itself decides, by a named policy. */
export const rowPolicy = <Row>(policy: RowPolicy<Row>): Rule => build({ row: policy })

/**
 * A row that belongs to a person, its `userId`. They act on it by the rest of the rule; with `others`, whoever holds that
 * scope may as well, in person and with a fresh second factor.
 */
export const personalRow = ({ name, others = null }: { name: string; others?: Scope | null }): Rule =>
  rowPolicy<{ userId: string }>({
    name,
    permits: (actor, { userId }) => userId === actor.userId || (others !== null && actor.scopes.includes(others)),
    belongs: { to: ({ userId }) => userId, others: others && allOf(scope(others), stepUp) },
  })

/** All of these rules together. At most one of them may carry a row policy. */
export function allOf(...rules: [Rule, Rule, ...Rule[]]): Rule {
  const rows = rules.flatMap((rule) => rule.row ?? [])
  if (rows.length > 1) throw new TypeError('Two row policies in one rule: join them in one named policy.')
  return build({
    public: rules.every((rule) => rule.public),
    platform: rules.some((rule) => rule.platform),
    scopes: [...new Set(rules.flatMap((rule) => rule.scopes))],
    role: rules.reduce<Role | null>(
      (highest, { role }) => (role && (!highest || rank(role) > rank(highest)) ? role : highest),
      null,
    ),
    stepUp: rules.some((rule) => rule.stepUp),
    row: rows[0] ?? null,
  })
}

/** Whether the actor holds what the rule asks for; the row policy is asked apart, when there is a row. */
export const holds = (actor: Actor, rule: Rule): boolean =>
  rule.platform ? actor.kind === 'system' : (actor.permissions & rule.mask) === rule.mask

export const permitsRow = (actor: Actor, rule: Rule, row: unknown): boolean =>
  rule.row === null || (isMember(actor) && (rule.row.permits as (actor: Member, row: unknown) => boolean)(actor, row))

/** What a rule asks for, as it appears in `extensions.requires`, the printed schema and the documentation. */
export const requirements = (rule: Rule): Record<string, unknown> => ({
  ...(rule.scopes.length ? { scopes: rule.scopes } : {}),
  ...(rule.role ? { role: rule.role } : {}),
  ...(rule.stepUp ? { stepUp: true } : {}),
  ...(rule.row ? { policy: rule.row.name } : {}),
})

const withoutStepUp = (rule: Rule): Rule => build({ ...rule, stepUp: false, row: null })

/** Why this actor is refused by this rule: not signed in, a missing second factor, or a missing scope or role, in that order. */
export function denial(actor: Actor, rule: Rule): AppError {
  const requires = requirements(rule)
  if (!isMember(actor))
    return new AppError('UNAUTHENTICATED', 'Sign in, or send an API key.', { extensions: { requires } })
  if (rule.stepUp && actor.kind === 'user' && holds(actor, withoutStepUp(rule)))
    return new AppError('MFA_REQUIRED', 'This needs a second factor given within the last ten minutes.', {
      extensions: { requires },
    })
  return new AppError('FORBIDDEN', 'Your credential does not permit this.', { extensions: { requires } })
}

/**
 * Why an act on this row is refused; null where it is not. A row that is not there and one that the actor may not see are
 * the same. Where nothing but a second factor stands between the actor and the rows of others, both answer with that: it
 * says no more than the actor knows of themselves.
 */
export function rowDenial(actor: Actor, rule: Rule, row: unknown, noun: string): AppError | null {
  const belongs = rule.row?.belongs as { to: (row: unknown) => string; others: Rule | null } | undefined
  const others = belongs?.others ?? null
  if (row === null || !permitsRow(actor, rule, row)) {
    const unseen = row === null && others && !gaveFactor(actor) && holds(actor, withoutStepUp(others))
    return unseen ? denial(actor, others) : notFound(noun)
  }
  const isOthers = belongs !== undefined && !(isMember(actor) && belongs.to(row) === actor.userId)
  if (!isOthers || (others && holds(actor, others))) return null
  return others ? denial(actor, others) : notFound(noun)
}

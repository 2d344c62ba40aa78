import type { DiscoverResult, PriorDiscovery } from '@modelcontextprotocol/client'
import type { UpstreamSession } from './upstreamSession.ts'

export type Era = 'legacy' | 'modern'
/** What is known of an upstream: whether it begins with `initialize`, and what it answered to `server/discover`. */
type Facts = { legacy?: boolean; modern?: DiscoverResult | false }
/** How to open a connection: in an era that is known to be spoken, or by finding out. */
export type Plan = { era: Era | 'unknown'; prior: PriorDiscovery | undefined }

/** How long a verdict stands: an upstream that has been upgraded still answers the old handshake. */
const verdictMs = 900_000
const maxVerdicts = 10_000

/** Which eras each upstream speaks, so that it is asked once. */
export class Verdicts {
  readonly #held = new Map<string, { facts: Facts; at: number }>()
  readonly #now: () => number

  constructor(now: () => number) {
    this.#now = now
  }

  /**
   * The client's own era where the upstream speaks it, so that nothing has to be translated. A legacy client's is tried
   * without asking first, because the handshake is itself the question.
   */
  plan(target: string, era: Era): Plan {
    const { legacy, modern } = this.#facts(target)
    if (era === 'legacy' && legacy !== false) return { era: 'legacy', prior: { kind: 'legacy' } }
    if (modern) return { era: 'modern', prior: { kind: 'modern', discover: modern } }
    if (modern === false) return { era: 'legacy', prior: { kind: 'legacy' } }
    return { era: 'unknown', prior: undefined }
  }

  /** What a connection that stands has shown; one that came about only after a handshake was refused shows both. */
  learn(target: string, session: UpstreamSession, plan: Plan, handshakeRefused: boolean): void {
    const facts: Facts = { ...this.#facts(target) }
    if (session.era === 'legacy') facts.legacy = true
    else if (handshakeRefused) facts.legacy = false
    if (session.verdict.kind === 'modern') facts.modern = session.verdict.discover
    else if (plan.prior === undefined) facts.modern = false
    const [oldest] = this.#held.keys()
    if (this.#held.size >= maxVerdicts && oldest !== undefined) this.#held.delete(oldest)
    const at = this.#held.get(target)?.at ?? this.#now()
    this.#held.set(target, { facts, at })
  }

  forget(target: string): void {
    this.#held.delete(target)
  }

  #facts(target: string): Facts {
    const held = this.#held.get(target)
    if (held && this.#now() - held.at < verdictMs) return held.facts
    this.#held.delete(target)
    return {}
  }
}

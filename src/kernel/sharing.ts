import { InFlight } from './inFlight.ts'

const nothing = (): void => undefined

/**
 * Questions that come while the same one is under way share the next one, as writes share a group commit: many that come at
 * once cost the database two statements, and no answer is older than its question. The key must hold all that an answer
 * depends on, and whose it is.
 */
export class Sharing<Answer> {
  readonly #underWay = new InFlight<string, Promise<void>>()
  readonly #next = new InFlight<string, Promise<Answer>>()

  ask(key: string, question: () => Promise<Answer>): Promise<Answer> {
    const next = this.#next.get(key)
    if (next) return next
    const current = this.#underWay.get(key)
    if (!current) return this.#begin(key, question)
    const mine = current.then(() => {
      this.#next.delete(key)
      return this.#begin(key, question)
    })
    this.#next.set(key, mine)
    return mine
  }

  #begin(key: string, question: () => Promise<Answer>): Promise<Answer> {
    const answer = question()
    const over = answer.then(nothing, nothing)
    this.#underWay.set(key, over)
    void over.then(() => {
      if (!this.#next.get(key)) this.#underWay.delete(key)
    })
    return answer
  }
}

/** An organisation's waiting calls. */
type Line = (() => void)[]

type Widths = {
  /** Calls that begin in one round, as long as nothing says otherwise. */
  wide: number
  /** And in one after a new connection: where it is less than one, it takes several rounds to let one call begin. */
  narrow: number
  /** Calls of one organisation in one round, where others ask too. */
  each: number
  /** Calls that wait. */
  longest: number
}

/** What part of a round's length may go to what begins in the next, at a millisecond a call. */
const share = 1 / 2
const narrowShare = 1 / 8
/** For how many rounds a new connection tells of more. */
const stormRounds = 2
/** For how long it is remembered that others ask too. */
const companyMs = 1000

/**
 * How many calls begin in one round of the event loop: so many in all, and a few of each organisation where several ask. A
 * burst that one round holds waits for nothing; somebody else's request meets a few of a flood in each round.
 *
 * A round takes one new connection, and where one has come there may be thousands: then few begin, so that rounds are short
 * and all are heard soon. And where rounds are long for another reason, most of all for the many that are refused in each,
 * more begin, so that work goes on.
 */
export class Rounds {
  readonly #widths: Widths
  // In the order of their turns: who was served goes to the end.
  readonly #lines = new Map<string, Line>()
  #waiting = 0
  /** Calls that may still begin in this round, or in the next where none is under way. */
  #left: number
  #each: number
  readonly #begun = new Map<string, number>()
  #underWay = false
  #sinceConnection = stormRounds
  #latest = ''
  #companyUntil = 0

  constructor(widths: Widths) {
    this.#widths = widths
    this.#left = widths.wide
    this.#each = widths.each
  }

  /** Hears of a new connection. */
  connected(): void {
    this.#sinceConnection = 0
  }

  /** Hears who asks for something, whatever it is. */
  hear(tenant: string): void {
    if (tenant === this.#latest) return
    if (this.#latest !== '') this.#companyUntil = performance.now() + companyMs
    this.#latest = tenant
  }

  /** Resolves when the call may begin; false where so many wait already that it had better come back. */
  enter(tenant: string): Promise<boolean> | true {
    this.hear(tenant)
    if (!this.#underWay) this.#round()
    if (!this.#lines.has(tenant) && this.#mayBegin(tenant)) {
      this.#begin(tenant)
      return true
    }
    if (this.#waiting >= this.#widths.longest) return Promise.resolve(false)
    this.#waiting += 1
    const line = this.#lines.get(tenant) ?? []
    this.#lines.set(tenant, line)
    return new Promise((resolve) => void line.push(() => resolve(true)))
  }

  #mayBegin(tenant: string): boolean {
    if (this.#left < 1) return false
    return (this.#begun.get(tenant) ?? 0) < this.#each || performance.now() > this.#companyUntil
  }

  #begin(tenant: string): void {
    this.#left -= 1
    this.#begun.set(tenant, (this.#begun.get(tenant) ?? 0) + 1)
  }

  #round(): void {
    this.#underWay = true
    const { wide, narrow } = this.#widths
    const began = performance.now()
    setImmediate(() => {
      const ms = performance.now() - began
      const storm = this.#sinceConnection < stormRounds
      this.#sinceConnection += 1
      this.#each = Math.max(this.#widths.each, ms * narrowShare)
      this.#left = storm ? (this.#left % 1) + Math.max(narrow, ms * narrowShare) : Math.max(wide, ms * share)
      this.#begun.clear()
      this.#underWay = false
      if (this.#waiting === 0) return
      this.#round()
      this.#serve()
    })
  }

  #serve(): void {
    for (let served = true; served && this.#left >= 1;) {
      served = false
      for (const [tenant, line] of [...this.#lines]) {
        if (!this.#mayBegin(tenant)) continue
        this.#lines.delete(tenant)
        const next = line.shift()
        if (line.length > 0) this.#lines.set(tenant, line)
        if (!next) continue
        this.#waiting -= 1
        this.#begin(tenant)
        next()
        served = true
      }
    }
  }
}

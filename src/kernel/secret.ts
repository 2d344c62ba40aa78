import { inspect } from 'node:util'

const printed = '[secret]'

/** A value that will not print: every road to text answers `[secret]`. `reveal()` is the one way out, and it is greppable. */
export class Secret<T = string> {
  readonly #value: T

  constructor(value: T) {
    this.#value = value
  }

  reveal(): T {
    return this.#value
  }

  toString(): string {
    return printed
  }

  toJSON(): string {
    return printed
  }

  [inspect.custom](): string {
    return printed
  }
}

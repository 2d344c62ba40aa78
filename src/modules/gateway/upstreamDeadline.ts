import { setTimeout as delay } from 'node:timers/promises'
import { Cancelled, upstreamTimeout } from './upstreamErrors.ts'

/** How much longer than its deadline a request may take when the upstream keeps showing signs of life. */
const patience = 10

/**
 * One request's time: counted anew at each sign of life, up to ten times the whole, and not counted while a person is
 * being asked. Its signal also follows the caller's.
 */
export class Deadline {
  readonly #controller = new AbortController()
  readonly #ms: number
  #end: number
  readonly #caller: AbortSignal | undefined
  readonly #onCancel = () =>
    this.#controller.abort(new Cancelled('The caller gave up.', { cause: this.#caller?.reason }))
  #timer: NodeJS.Timeout | undefined
  #paused = 0

  constructor(ms: number, caller?: AbortSignal) {
    this.#ms = ms
    this.#end = Date.now() + ms * patience
    this.#caller = caller
    if (caller?.aborted) this.#onCancel()
    else caller?.addEventListener('abort', this.#onCancel, { once: true })
    this.touch()
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  touch(): void {
    clearTimeout(this.#timer)
    if (this.signal.aborted || this.#paused > 0) return
    const left = Math.max(0, Math.min(this.#ms, this.#end - Date.now()))
    this.#timer = setTimeout(() => this.#controller.abort(upstreamTimeout()), left)
  }

  /** Runs something that takes as long as a person takes. */
  async whilePaused<T>(work: () => Promise<T>): Promise<T> {
    this.#paused++
    this.touch()
    const since = Date.now()
    try {
      return await work()
    } finally {
      if (--this.#paused === 0) this.#end += Date.now() - since
      this.touch()
    }
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#caller?.removeEventListener('abort', this.#onCancel)
  }
}

/** Settles as the promise does, or rejects at once when the signal is aborted; the promise itself goes on. */
export function abandonable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise
  return new Promise<T>((resolve, reject) => {
    const onAbort = () => reject(signal.reason instanceof Error ? signal.reason : new Cancelled('The caller gave up.'))
    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}

export const wait = (ms: number, signal?: AbortSignal): Promise<void> =>
  delay(ms, undefined, { ref: false, ...(signal ? { signal } : {}) })

/** A promise with the function that fulfils it. */
export function signalled(): { promise: Promise<void>; fulfil: () => void } {
  let fulfil = (): void => undefined
  const promise = new Promise<void>((resolve) => {
    fulfil = resolve
  })
  return { promise, fulfil }
}

/** Aborts with another signal as well, until what is returned is called; `AbortSignal.any` costs a call many times as much. */
export function following(controller: AbortController, signal: AbortSignal): () => void {
  const follow = (): void => controller.abort(signal.reason)
  if (signal.aborted) follow()
  else signal.addEventListener('abort', follow, { once: true })
  return () => signal.removeEventListener('abort', follow)
}

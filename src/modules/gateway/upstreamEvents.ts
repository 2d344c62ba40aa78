/** One event of a `text/event-stream`, as far as MCP uses it. */
export type ServerSentEvent = { id: string | undefined; data: string; retryMs: number | undefined }

/**
 * Splits a `text/event-stream` into events (WHATWG HTML, section 9.2). Fed with the bytes as they come; an event is
 * given out at its blank line, and a half event at the end of the stream is dropped.
 */
export class EventStreamParser {
  readonly #decoder = new TextDecoder()
  /** The beginning of a line whose end has not come yet, in the pieces it came in: a long line is not scanned again and again. */
  #rest: string[] = []
  #data: string[] = []
  #id: string | undefined
  #retryMs: number | undefined

  push(chunk: Uint8Array): ServerSentEvent[] {
    const text = this.#decoder.decode(chunk, { stream: true })
    this.#rest.push(text)
    if (!/[\r\n]/.test(text) && !this.#rest.at(-2)?.endsWith('\r')) return []
    // A lone \r at the very end may be the first half of \r\n: it waits for the next chunk.
    const lines = this.#rest.join('').split(/\r\n|\n|\r(?!$)/)
    this.#rest = [lines.pop() ?? '']
    const events: ServerSentEvent[] = []
    for (const line of lines) {
      const event = this.#line(line)
      if (event) events.push(event)
    }
    return events
  }

  #line(line: string): ServerSentEvent | undefined {
    if (line === '') return this.#dispatch()
    const colon = line.indexOf(':')
    if (colon === 0) return undefined
    const field = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1)
    if (field === 'data') this.#data.push(value)
    else if (field === 'id' && !value.includes('\0')) this.#id = value
    else if (field === 'retry' && /^\d+$/.test(value)) this.#retryMs = Number(value)
    return undefined
  }

  #dispatch(): ServerSentEvent | undefined {
    const event = { id: this.#id, data: this.#data.join('\n'), retryMs: this.#retryMs }
    this.#data = []
    this.#id = undefined
    this.#retryMs = undefined
    return event.data !== '' || event.id !== undefined || event.retryMs !== undefined ? event : undefined
  }
}

const newline = 0x0a

/** Splits a stream of bytes into lines; a line that comes in pieces is put together once. */
export class LineSplitter {
  readonly #maxBytes: number
  #pieces: Buffer[] = []
  #size = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** The lines that this chunk ends, or nothing at all once a line is longer than it may be. */
  push(chunk: Buffer): string[] | undefined {
    const lines: string[] = []
    let from = 0
    for (let at = chunk.indexOf(newline); at >= 0; at = chunk.indexOf(newline, from)) {
      if (!this.#hold(chunk.subarray(from, at))) return undefined
      const line = Buffer.concat(this.#pieces).toString('utf8').trim()
      this.#pieces = []
      this.#size = 0
      if (line !== '') lines.push(line)
      from = at + 1
    }
    return this.#hold(chunk.subarray(from)) ? lines : undefined
  }

  #hold(piece: Buffer): boolean {
    this.#size += piece.length
    if (this.#size > this.#maxBytes) return false
    if (piece.length > 0) this.#pieces.push(piece)
    return true
  }
}

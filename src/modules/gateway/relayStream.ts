import { Response } from '@whatwg-node/fetch'
const keepAliveMs = 15_000

const headers = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-cache, no-transform',
  // Proxies that buffer would hold back what is to be streamed.
  'x-accel-buffering': 'no',
}

/** A `text/event-stream` that is written to until it is closed by us or left by the client. */
export class EventStream {
  readonly response: Response
  readonly #encoder = new TextEncoder()
  readonly #timer: NodeJS.Timeout
  #controller!: ReadableStreamDefaultController<Uint8Array>
  #open = true

  constructor(onLeave: () => void) {
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#controller = controller
      },
      cancel: () => {
        this.#end()
        onLeave()
      },
    })
    this.response = new Response(body, { headers })
    this.#timer = setInterval(() => this.#write(': keepalive\n\n'), keepAliveMs).unref()
  }

  send(message: object): void {
    this.#write(`event: message\ndata: ${JSON.stringify(message)}\n\n`)
  }

  sendText(text: string, id: string): void {
    this.#write(`event: message\nid: ${id}\ndata: ${text}\n\n`)
  }

  /** An event without content, whose id says where to begin again and after how long. */
  prime(id: string, retryMs: number): void {
    this.#write(`id: ${id}\nretry: ${retryMs}\ndata: \n\n`)
  }

  close(): void {
    if (!this.#open) return
    this.#end()
    this.#controller.close()
  }

  #write(text: string): void {
    if (this.#open) this.#controller.enqueue(this.#encoder.encode(text))
  }

  #end(): void {
    this.#open = false
    clearInterval(this.#timer)
  }
}

/**
 * Answers with plain JSON when the answer is all there is to say, and with a stream from the first thing that is said
 * before it. `work` settles with the final message and never rejects.
 */
export function lazily(
  work: (send: (message: object) => void) => Promise<object>,
  onLeave: () => void,
  mayStream: boolean,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    let stream: EventStream | undefined
    const send = (message: object): void => {
      if (!mayStream) return
      if (!stream) {
        stream = new EventStream(onLeave)
        resolve(stream.response)
      }
      stream.send(message)
    }
    work(send).then((message) => {
      if (!stream) return resolve(Response.json(message))
      stream.send(message)
      stream.close()
    }, reject)
  })
}

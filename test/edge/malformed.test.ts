import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { listen, type Listening } from '../../src/listen.ts'
import { createWorld, type World } from '../harness/world.ts'

let world: World
let server: Listening
beforeAll(async () => {
  world = await createWorld()
  server = await listen(world.app, { ...world.platform.config, host: '127.0.0.1', port: 0 })
})
afterAll(async () => {
  await server.stop()
  await world.database.drop()
})

/** What comes back for bytes that no HTTP client would send; empty where the connection ends without an answer. */
function answered(text: string): Promise<string> {
  const socket = connect(server.port, '127.0.0.1')
  return new Promise((resolve) => {
    let answer = ''
    const done = (): void => {
      resolve(answer)
      socket.destroy()
    }
    socket.on('error', done)
    socket.on('close', done)
    socket.on('data', (chunk: Buffer) => {
      answer += chunk.toString()
      const [head = '', body] = answer.split('\r\n\r\n')
      const length = Number(/content-length: (\d+)/i.exec(head)?.[1])
      if (body !== undefined && body.length >= length) done()
    })
    socket.write(text)
  })
}

describe('a request that is none', () => {
  const hosts = ['a b', '[::1', 'x:99999999', 'exa<mple', '%']
  it.each(hosts)('is a bad one, said as every error is, and costs nobody else anything: Host %s', async (host) => {
    const answer = await answered(`GET /graphql HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
    expect(answer).toMatch(/^HTTP\/1\.1 400 /)
    expect(answer.toLowerCase()).toContain('strict-transport-security: max-age=31536000; includesubdomains')
    expect(answer).toContain('"BAD_USER_INPUT"')
    expect(answer).not.toMatch(/Invalid URL|node:internal|\.ts:|\.js:/)
    expect((await fetch(`${server.address}/healthz`)).status).toBe(200)
  })

  it.each(['//evil.example/graphql', 'http://evil.example/graphql', '/%', '/\\', '*'])(
    'reaches nothing by an odd target: %s',
    async (target) => {
      const answer = await answered(`POST ${target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`)
      expect(answer).toMatch(/^HTTP\/1\.1 (400|404|405) /)
      expect(answer).not.toMatch(/node:internal|\.ts:|\.js:/)
    },
  )

  it('is refused once its body is longer than it may be, announced or not, and when it is no UTF-8', async () => {
    const head = 'POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
    expect(await answered(`${head}Content-Length: 99999999\r\n\r\n{`)).toMatch(/^HTTP\/1\.1 413 /)
    const chunk = `${(65_536).toString(16)}\r\n${'x'.repeat(65_536)}\r\n`
    expect(await answered(`${head}Transfer-Encoding: chunked\r\n\r\n${chunk.repeat(40)}`)).toMatch(/^HTTP\/1\.1 413 /)
    const odd = await fetch(`${server.address}/graphql`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: Uint8Array.from([0x22, 0xff, 0x22]) }) // prettier-ignore
    expect(odd.status).toBe(400)
  })
})

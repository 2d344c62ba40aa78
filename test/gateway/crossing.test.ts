import { afterEach, expect, it } from 'vitest'
import type { Passage } from '../../src/modules/gateway/types.ts'
import { connect, mount, passage } from './peers/gateway.ts'
import { listen } from './peers/http.ts'
import { startRecorder } from './peers/recorder.ts'

/** One caller's sessions, questions and connections, tried by another. */
const opened: { close: () => Promise<void> }[] = []
const keep = <T extends { close: () => Promise<void> }>(thing: T): T => (opened.push(thing), thing)
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close()
})

const post = (door: URL, message: object, session?: string, method = 'POST') =>
  fetch(door, {
    method,
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      ...(session === undefined ? {} : { 'mcp-session-id': session }),
    },
    ...(method === 'POST' ? { body: JSON.stringify({ jsonrpc: '2.0', ...message }) } : {}),
  })
const initialize = async (door: URL, capabilities: object): Promise<string> => {
  const params = { protocolVersion: '2025-06-18', capabilities, clientInfo: { name: 'x', version: '1' } }
  const response = await post(door, { id: 1, method: 'initialize', params })
  await response.text()
  return response.headers.get('mcp-session-id') ?? ''
}
async function* messages(response: Response): AsyncGenerator<any> {
  let text = ''
  const decoder = new TextDecoder()
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    text += decoder.decode(chunk, { stream: true })
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const data = /^data: (.*)$/m.exec(text.slice(0, end))?.[1]
      text = text.slice(end + 2)
      if (data) yield JSON.parse(data)
    }
  }
}
const withKey = (of: Passage, credentialId: string): Passage => ({ ...of, actor: { ...of.actor, credentialId } })

it.each([
  ['another user', (url: string) => passage({ url, user: 'eve' })],
  ['the same user with another key', (url: string) => withKey(passage({ url, user: 'ada' }), 'another-key-of-ada')],
])('a session id is of no use to %s: not to answer, not to cancel, not to end', async (_, other) => {
  const upstream = keep(await startRecorder('legacy'))
  const mounted = keep(await mount())
  const mine = mounted.door(passage({ url: upstream.url, user: 'ada' }))
  const theirs = mounted.door(other(upstream.url))
  const session = await initialize(mine, { elicitation: {} })
  const call = { id: 2, method: 'tools/call', params: { name: 'order', arguments: { guest: 'Ada' } } }
  const stream = messages(await post(mine, call, session))
  const question = (await stream.next()).value
  expect(question).toMatchObject({ method: 'elicitation/create' })
  const answer = (dish: string) => ({ id: question.id, result: { action: 'accept', content: { dish } } })
  await post(theirs, answer('poison'), session)
  await post(theirs, { id: question.id, error: { code: -1, message: 'no' } }, session)
  await post(theirs, { method: 'notifications/cancelled', params: { requestId: 2 } }, session)
  await post(theirs, {}, session, 'DELETE')
  expect((await post(mine, answer('soup'), session)).status).toBe(202)
  expect((await stream.next()).value).toMatchObject({ id: 2, result: { content: [{ text: 'Ada has soup' }] } })
  expect((await post(mine, { id: 3, method: 'ping' }, session)).status).toBe(200)
})

it('a connection on which an upstream can ask is one user’s, though the credential is everybody’s', async () => {
  const upstream = keep(await startRecorder('legacy'))
  const mounted = keep(await mount())
  // One shared credential: without capabilities the connection is shared as well.
  const shared = (user: string): Passage => {
    const of = passage({ url: upstream.url, user, token: 'ghp_everybodys_token' })
    return { ...of, target: { ...of.target, key: 'shared' } }
  }
  const connections = () => upstream.seen.filter(({ rpc }) => rpc === 'initialize').length
  for (const user of ['ada', 'eve']) await (await connect(mounted.door(shared(user)), 'legacy')).close()
  expect(connections()).toBe(1)
  const asks = { capabilities: { elicitation: {} } }
  for (const user of ['ada', 'eve', 'ada']) await (await connect(mounted.door(shared(user)), 'legacy', asks)).close()
  expect(connections()).toBe(3)
})

it('no name of an object’s own machinery is taken for a change', async () => {
  const notify = ['constructor', '__proto__', 'toString', 'notifications/tools/list_changed']
  const hostile = keep(
    await listen((request, response) => {
      if (request.method === 'GET') {
        response.writeHead(200, { 'content-type': 'text/event-stream' })
        const say = () => notify.forEach((method) => response.write(`data: ${JSON.stringify({ jsonrpc: '2.0', method })}\n\n`)) // prettier-ignore
        const timer = setInterval(say, 50)
        response.once('close', () => clearInterval(timer))
        return
      }
      let text = ''
      request.on('data', (chunk: Buffer) => (text += chunk.toString()))
      request.on('end', () => {
        const { id } = (text === '' ? {} : JSON.parse(text)) as { id?: number }
        if (id === undefined) return void response.writeHead(202).end()
        const result = { protocolVersion: '2025-06-18', capabilities: { tools: { listChanged: true } }, serverInfo: { name: 'h', version: '1' } } // prettier-ignore
        response.writeHead(200, { 'content-type': 'application/json', 'mcp-session-id': 'h' })
        response.end(JSON.stringify({ jsonrpc: '2.0', id, result }))
      })
    }),
  )
  const mounted = keep(await mount())
  const door = mounted.door(passage({ url: hostile.url }))
  const session = await initialize(door, {})
  const stream = messages(await fetch(door, { headers: { accept: 'text/event-stream', 'mcp-session-id': session } }))
  for (let n = 0; n < 3; n++)
    expect((await stream.next()).value).toEqual({ jsonrpc: '2.0', method: 'notifications/tools/list_changed' })
  await stream.return(undefined)
})

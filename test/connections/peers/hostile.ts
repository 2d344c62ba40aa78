import type { IncomingMessage, ServerResponse } from 'node:http'
import { listen } from '../../gateway/peers/http.ts'

export type Hostile = {
  /** The MCP endpoint whose metadata this server makes up. */
  endpoint: string
  origin: string
  /** What it answers, by path; a function for what is no JSON. */
  answers: Map<string, object | ((request: IncomingMessage, response: ServerResponse) => void)>
  seen: { method: string; path: string; text: string }[]
  /** Metadata of a decent resource and authorization server at this origin, to spoil one part of. */
  decent: () => void
  close: () => Promise<void>
}

export const resourcePath = '/.well-known/oauth-protected-resource/mcp'
export const serverPath = '/.well-known/oauth-authorization-server'

/** An upstream and an authorization server that say whatever a test wants them to. */
export async function startHostile(): Promise<Hostile> {
  const answers: Hostile['answers'] = new Map()
  const seen: Hostile['seen'] = []
  const peer = await listen((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const path = (request.url ?? '').split('?', 1)[0] ?? ''
      seen.push({ method: request.method ?? '', path, text: Buffer.concat(chunks).toString() })
      const answer = answers.get(path)
      if (typeof answer === 'function') return answer(request, response)
      if (answer)
        return void response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answer))
      response.writeHead(path === '/mcp' ? 401 : 404).end()
    })
  })
  const { origin } = new URL(peer.url)
  return {
    endpoint: peer.url,
    origin,
    answers,
    seen,
    decent: () => {
      answers.clear()
      seen.length = 0
      answers.set(resourcePath, { resource: peer.url, authorization_servers: [origin] })
      answers.set(serverPath, {
        issuer: origin,
        authorization_endpoint: `${origin}/authorize`,
        token_endpoint: `${origin}/token`,
        registration_endpoint: `${origin}/register`,
        response_types_supported: ['code'],
        code_challenge_methods_supported: ['S256'],
        token_endpoint_auth_methods_supported: ['none'],
      })
      answers.set('/register', (_request, response) => {
        response.writeHead(201, { 'content-type': 'application/json' }).end(JSON.stringify({ client_id: 'given' }))
      })
    },
    close: peer.close,
  }
}

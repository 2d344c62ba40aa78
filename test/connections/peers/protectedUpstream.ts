import { request as send } from 'node:http'
import { listen, type Peer } from '../../gateway/peers/http.ts'
import { startRecorder, type Recorder } from '../../gateway/peers/recorder.ts'
import type { AuthorizationServer } from './authorizationServer.ts'

export type ProtectedUpstream = Peer & {
  recorder: Recorder
  /** Requests that came without a token that is good here. */
  refused: number
  /** Tokens that came, good or not. */
  tokens: string[]
  /** While it is on, every token is refused. */
  strict: boolean
}

/**
 * A real MCP server behind a resource server's check: the token must be the authorization server's, for this very resource,
 * and alive. It says so in its metadata and its challenges (RFC 9728, RFC 6750).
 */
export async function startProtectedUpstream(
  era: 'legacy' | 'modern',
  authorizationServer: AuthorizationServer,
): Promise<ProtectedUpstream> {
  const recorder = await startRecorder(era)
  const metadataPath = '/.well-known/oauth-protected-resource/mcp'
  const peer = await listen((request, response) => {
    const { headers, method, url } = request
    const origin = `http://${headers.host ?? ''}`
    if (url === metadataPath)
      return void response.writeHead(200, { 'content-type': 'application/json' }).end(
        JSON.stringify({
          resource: `${origin}/mcp`,
          authorization_servers: [authorizationServer.issuer],
          scopes_supported: ['notes:read', 'notes:write'],
        }),
      )
    const [, token = ''] = /^Bearer (\S+)$/.exec(headers.authorization ?? '') ?? []
    if (token) state.tokens.push(token)
    const found = state.strict ? Promise.resolve(undefined) : authorizationServer.provider.AccessToken.find(token)
    void found.then((known) => {
      if (!known?.isValid || known.aud !== `${origin}/mcp`) {
        state.refused++
        const challenge = `Bearer resource_metadata="${origin}${metadataPath}", scope="notes:read"`
        request.resume()
        return void response.writeHead(401, { 'www-authenticate': challenge }).end()
      }
      const target = new URL(url ?? '', recorder.url)
      const onward = send(target, { method, headers: { ...headers, host: target.host } }, (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers)
        answer.pipe(response)
      })
      onward.on('error', () => response.destroy())
      response.on('close', () => onward.destroy())
      request.pipe(onward)
    })
  })
  const state: ProtectedUpstream = {
    ...peer,
    recorder,
    refused: 0,
    tokens: [],
    strict: false,
    close: async () => {
      await peer.close()
      await recorder.close()
    },
  }
  return state
}

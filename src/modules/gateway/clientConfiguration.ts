import { z } from 'zod'

export const mcpClients = z.enum({
  CLAUDE_DESKTOP: 'CLAUDE_DESKTOP',
  CLAUDE_CODE: 'CLAUDE_CODE',
  CURSOR: 'CURSOR',
  VSCODE: 'VSCODE',
  WINDSURF: 'WINDSURF',
  CODEX: 'CODEX',
  GEMINI_CLI: 'GEMINI_CLI',
  CLINE: 'CLINE',
  ZED: 'ZED',
  OPENCODE: 'OPENCODE',
  GENERIC: 'GENERIC',
})
export type McpClient = z.infer<typeof mcpClients>

export type ClientConfiguration = { file: string | null; content: string; command: string | null }

const placeholder = 'YOUR_API_KEY'

/** Where clients that read keys from the environment look for it. */
const variable = 'MCP_API_KEY'

const pretty = (value: unknown): string => JSON.stringify(value, null, 2)

/**
 * What to paste into an MCP client so that it reaches one service through the platform. The key is a placeholder, since
 * the platform does not know it either.
 */
export function clientConfiguration(client: McpClient, name: string, url: string): ClientConfiguration {
  const headers = { Authorization: `Bearer ${placeholder}` }
  switch (client) {
    case 'CLAUDE_CODE':
      return {
        file: '.mcp.json',
        content: pretty({ mcpServers: { [name]: { type: 'http', url, headers } } }),
        command: `claude mcp add --transport http ${name} ${url} --header "Authorization: Bearer ${placeholder}"`,
      }
    case 'CLAUDE_DESKTOP': {
      // Its file names processes alone, so a small bridge carries the header.
      const args = ['-y', 'mcp-remote', url, '--header', 'Authorization:${AUTH_HEADER}']
      const env = { AUTH_HEADER: `Bearer ${placeholder}` }
      return {
        file: 'claude_desktop_config.json',
        content: pretty({ mcpServers: { [name]: { command: 'npx', args, env } } }),
        command: null,
      }
    }
    case 'VSCODE': {
      const input = { type: 'promptString', id: 'mcp-platform-key', description: 'API key', password: true }
      const asked = { Authorization: 'Bearer ${input:mcp-platform-key}' }
      return {
        file: '.vscode/mcp.json',
        content: pretty({ inputs: [input], servers: { [name]: { type: 'http', url, headers: asked } } }),
        command: null,
      }
    }
    case 'WINDSURF':
      return {
        file: '~/.codeium/windsurf/mcp_config.json',
        content: pretty({ mcpServers: { [name]: { serverUrl: url, headers } } }),
        command: null,
      }
    case 'CODEX':
      // It refuses a key in the file itself.
      return {
        file: '~/.codex/config.toml',
        content: `[mcp_servers.${name}]\nurl = ${JSON.stringify(url)}\nbearer_token_env_var = "${variable}"\n`,
        command: `codex mcp add ${name} --url ${url} --bearer-token-env-var ${variable}`,
      }
    case 'GEMINI_CLI':
      return {
        file: '~/.gemini/settings.json',
        content: pretty({ mcpServers: { [name]: { httpUrl: url, headers } } }),
        command: `gemini mcp add --scope user --transport http --header "Authorization: Bearer ${placeholder}" ${name} ${url}`,
      }
    case 'CLINE':
      return {
        file: 'cline_mcp_settings.json',
        content: pretty({ mcpServers: { [name]: { type: 'streamableHttp', url, headers, disabled: false } } }),
        command: null,
      }
    case 'ZED':
      return {
        file: '~/.config/zed/settings.json',
        content: pretty({ context_servers: { [name]: { url, headers } } }),
        command: null,
      }
    case 'OPENCODE':
      return {
        file: 'opencode.json',
        content: pretty({ mcp: { [name]: { type: 'remote', url, enabled: true, headers } } }),
        command: null,
      }
    case 'CURSOR':
      return { file: '.cursor/mcp.json', content: pretty({ mcpServers: { [name]: { url, headers } } }), command: null }
    case 'GENERIC':
      return { file: null, content: pretty({ mcpServers: { [name]: { type: 'http', url, headers } } }), command: null }
  }
}

const imported = z.looseObject({
  url: z.string().optional(),
  serverUrl: z.string().optional(),
  httpUrl: z.string().optional(),
  type: z.string().optional(),
  headers: z.record(z.string(), z.string()).optional(),
})

const entries = z.record(z.string().min(1).max(100), imported)

/**
 * The servers of an existing client file, under whichever name its client has for them. Entries of other transports are
 * named, not taken.
 */
export const mcpServersFile = z
  .looseObject({
    mcpServers: entries.optional(),
    servers: entries.optional(),
    context_servers: entries.optional(),
    mcp: entries.optional(),
  })
  .refine(
    (file) => (file.mcpServers ?? file.servers ?? file.context_servers ?? file.mcp) !== undefined,
    'expected an object with mcpServers (or servers, context_servers, mcp)',
  )
export type McpServersFile = z.infer<typeof mcpServersFile>

/** All entries of a file; of two with one name, the first. */
export const entriesOf = ({ mcpServers, servers, context_servers: context, mcp }: McpServersFile) =>
  Object.entries({ ...mcp, ...context, ...servers, ...mcpServers })

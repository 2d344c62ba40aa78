// PostGraphile 5 on the bench's database: its own preset, its documented way to row level security (`pgSettings`), and the
// access token verified at every request. It asks no database whether the session still stands, which is to its advantage.
import './withResolvers.mjs'
import { createServer } from 'node:http'
import { postgraphile } from 'postgraphile'
import { makePgService } from 'postgraphile/adaptors/pg'
import { grafserv } from 'postgraphile/grafserv/node'
import { PostGraphileAmberPreset } from 'postgraphile/presets/amber'
import { claimsOf } from '../token.ts'

const { DATABASE_URL, PORT, JWK, POOL_SIZE } = process.env

const preset = {
  extends: [PostGraphileAmberPreset],
  pgServices: [
    makePgService({ connectionString: DATABASE_URL, schemas: ['public'], poolConfig: { max: Number(POOL_SIZE) } }),
  ],
  grafserv: { port: Number(PORT), graphiql: false, watch: false, websockets: false },
  grafast: {
    explain: false,
    context({ node }) {
      const { sub, org, role, scope } = claimsOf(node?.req.headers.authorization, JWK)
      const claims = JSON.stringify({ sub, org, org_role: role, scope: scope.split(' ') })
      return { pgSettings: { role: 'mcp_app', 'request.jwt.claims': claims } }
    },
  },
}

const server = createServer()
server.on('error', (error) => {
  process.stderr.write(`${error}\n`)
  process.exit(1)
})
const serv = postgraphile(preset).createServ(grafserv)
await serv.addTo(server)
server.listen(Number(PORT), '127.0.0.1')

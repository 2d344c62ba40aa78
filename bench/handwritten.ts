// The least that could answer: one SQL statement written by hand, the answer built by PostgreSQL, under the same row level
// security and with the same confirmation of the credential, on a bare node:http. An upper bound, not a product.
import { createServer } from 'node:http'
import pg from 'pg'
import { exchange } from '../src/kernel/database/exchange.ts'
import { claimsOf } from './token.ts'

const { DATABASE_URL, PORT, JWK = '', POOL_SIZE } = process.env

const text = `SELECT json_build_object('data', json_build_object('organization', (
  SELECT json_build_object('name', o.name,
    'services', json_build_object('edges', (SELECT coalesce(json_agg(json_build_object('node', json_build_object('id', s.id, 'slug', s.slug, 'name', s.name))), '[]')
      FROM (SELECT id, slug, name FROM services WHERE org_id = o.id ORDER BY id LIMIT 20) s)),
    'members', json_build_object('edges', (SELECT coalesce(json_agg(json_build_object('node', json_build_object('role', m.role, 'user', json_build_object('id', u.id, 'name', u.name)))), '[]')
      FROM (SELECT role, user_id FROM memberships WHERE org_id = o.id ORDER BY id LIMIT 10) m JOIN users u ON u.id = m.user_id)))
  FROM organizations o WHERE o.id = $1::uuid)))::text`

const pool = new pg.Pool({ connectionString: DATABASE_URL, max: Number(POOL_SIZE), options: '-c role=mcp_app' })

async function answer(authorization: string | undefined): Promise<string> {
  const { sub, org, role, scope, sid } = claimsOf(authorization, JWK)
  const claims = JSON.stringify({ sub, org, org_role: role, scope: scope.split(' ') })
  const client = await pool.connect()
  try {
    const { rows } = await exchange(client, [
      { name: 'identify', text: 'SELECT app.identify($1, $2::uuid, $3)', values: ['user', sid, claims] },
      { name: 'nested', text, values: [org] },
    ])
    return String(rows[0]?.[0])
  } finally {
    client.release()
  }
}

createServer((request, response) => {
  request.resume().on('end', () => {
    answer(request.headers.authorization).then(
      (json) => response.writeHead(200, { 'Content-Type': 'application/json' }).end(json),
      (error: unknown) => response.writeHead(500).end(JSON.stringify({ errors: [String(error)] })),
    )
  })
}).listen(Number(PORT), '127.0.0.1')

import { afterEach, expect, it } from 'vitest'
import { createDatabase } from '../harness/database.ts'
import { start } from '../harness/process.ts'
import { createKey, seedOrganization } from '../harness/seed.ts'
import { createWorld } from '../harness/world.ts'
import { processTable } from '../../src/modules/gateway/hostedFamily.ts'
import { writeCatalogue } from '../gateway/peers/catalogue.ts'
import { crash } from './crash.ts'

const toDo: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const each of toDo.splice(0).reverse()) await each()
})

// `npm run crash` does it twenty times, on both databases.
it('keeps the row, the count and the write of everything that it answered before a SIGKILL, and cuts nothing at a SIGTERM', async () => {
  const database = await createDatabase()
  toDo.push(() => database.drop())
  const outcome = await crash({ data: database.settings, signals: ['SIGKILL', 'SIGKILL', 'SIGTERM'] })
  expect(outcome).toMatchObject({ missing: [], twice: [], gone: [], cut: 0 })
  expect(outcome.answered).toBeGreaterThanOrEqual(60)
  expect(outcome.written).toBeGreaterThan(0)
  expect(outcome.counted).toBe(outcome.rows)
}, 90_000)

it('leaves no process of a hosted service behind when it is killed, nor when it stops', async () => {
  const catalogue = await writeCatalogue()
  toDo.push(() => catalogue.remove())
  const database = await createDatabase()
  toDo.push(() => database.drop())
  const world = await createWorld({ CATALOGUE_FILE: catalogue.path }, { database })
  const org = await seedOrganization(world)
  const enable = 'mutation ($input: EnableHostedServiceInput!) { enableHostedService(input: $input) { id } }'
  expect((await world.graphql(enable, { input: { hosted: 'hungry' } }, org.admin)).errors).toEqual([])
  const key = await createKey(world, org.developer, ['mcp:read', 'mcp:write'])
  await world.app.close()

  for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
    const platform = await start({ ...database.settings, CATALOGUE_FILE: catalogue.path, DEMO: 'off' })
    const tool = async (name: string): Promise<unknown> => {
      const response = await fetch(`${platform.address}/mcp/${org.slug}/hungry`, {
        method: 'POST',
        headers: {
          authorization: key.authorization,
          'content-type': 'application/json',
          accept: 'application/json, text/event-stream',
        },
        body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: {} } }),
      })
      const { result } = (await response.json()) as { result: { content: { text: string }[] } }
      return JSON.parse(result.content[0]?.text ?? 'null') as unknown
    }
    const { pid } = (await tool('self')) as { pid: number }
    const bred = (await tool('breed')) as number[]
    await tool('stubborn')
    const family = [pid, ...bred]
    const alive = async () => (await processTable()).filter((row) => family.includes(row.pid)).length
    expect(await alive()).toBe(3)
    platform.signal(signal)
    await platform.exited
    await expect.poll(alive, { timeout: 10_000 }).toBe(0)
  }
}, 120_000)

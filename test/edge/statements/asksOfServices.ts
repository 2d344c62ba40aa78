import { randomUUID } from 'node:crypto'
import { visit } from '../../connections/peers/authorizationServer.ts'
import { begin, connectAccount, oauthService, returnedBy } from '../../connections/peers/connecting.ts'
import { createService, type Person } from '../../harness/seed.ts'
import type { Question } from './questions.ts'
import { admin, prepare, type Stage } from './stage.ts'

const token = 'a token of somebody’s own'.replaceAll(/[^a-z]/g, '-')
const slug = (): string => `x-${randomUUID().slice(0, 12)}`
const upstream = 'https://upstream.example/mcp'
const many = <T>({ copies }: Stage, make: (n: number) => T): T[] => Array.from({ length: copies }, (_, n) => make(n))

/** A service at the shifty upstream, and who may do everything with it. */
async function service(stage: Stage, credentialMode = 'NONE', endpoint = upstream) {
  const as = await admin(stage)
  const input = { slug: slug(), endpoint, credentialMode }
  return { as, slug: input.slug, serviceId: await createService(stage.world, as, input) }
}

async function withToken(stage: Stage) {
  const { as, serviceId } = await service(stage, 'PERSONAL')
  await prepare(stage, 'storeServiceToken', { serviceId, token }, as)
  return { as, serviceId }
}

async function connectable(stage: Stage, mode: 'PERSONAL' | 'SHARED' = 'PERSONAL') {
  const as = await admin(stage)
  return { as, ...(await oauthService(stage.world, as, stage.protectedUrl, mode)) }
}

async function connected(stage: Stage, mode: 'PERSONAL' | 'SHARED' = 'PERSONAL') {
  const { as, serviceId } = await connectable(stage, mode)
  await connectAccount(stage.world, as, serviceId, { login: 'ada', shared: mode === 'SHARED' })
  return { as, input: { serviceId } }
}

const registration = ({ copies }: Stage, n: number) => ({
  document: `query R${copies}x${n} { viewer { id } } # ${randomUUID()}`,
})

async function collection(stage: Stage, as: Person) {
  const { serviceId } = await service(stage)
  return { as, input: { slug: slug(), name: 'Chosen', tools: many(stage, (n) => ({ serviceId, tool: `t${n}` })) } }
}

async function client(stage: Stage) {
  const { as, serviceId } = await connectable(stage)
  return { as, input: { serviceId, issuer: stage.issuer.issuer, clientId: 'ours' } }
}

/** Services and what is held for them, their tools, registered operations. */
export const asksOfServices: Record<string, Question> = {
  acceptToolChange: async (stage) => {
    const { as, slug: named, serviceId } = await service(stage, 'NONE', stage.shifty.url)
    const list = () => stage.world.graphql(`{ service(slug: "${named}") { tools { name } toolChanges { hash } } }`, {}, as)
    await list()
    stage.shifty.tools.set('echo', `Repeats a text, ${randomUUID()}.`)
    // Past the time for which a list is fresh.
    stage.clock.forward(61)
    await list()
    const { data } = await list()
    return { as: await admin(stage), input: { serviceId, tool: 'echo', hash: data['service'].toolChanges[0].hash } }
  },
  callTool: async (stage) => {
    const { as, slug: named } = await service(stage, 'NONE', stage.shifty.url)
    const input = { service: named, tool: 'echo', arguments: { text: 'hello' } }
    await prepare(stage, 'callTool', input, as, '{ isError }')
    return { as, input }
  },
  completeServiceConnection: async (stage) => {
    const { as, serviceId } = await connectable(stage)
    return { as, input: returnedBy(await visit(await begin(stage.world, as, serviceId))) }
  },
  connectService: async (stage) => {
    const { as, serviceId } = await connectable(stage)
    return { as, input: { serviceId } }
  },
  connectSharedService: async (stage) => {
    const { as, serviceId } = await connectable(stage, 'SHARED')
    return { as, input: { serviceId } }
  },
  createService: async (stage) => ({ as: await admin(stage), input: { slug: slug(), name: 'New', endpoint: upstream } }),
  deletePersistedOperation: async (stage) => {
    const as = await admin(stage)
    return { as, input: { id: (await prepare(stage, 'registerPersistedOperation', registration(stage, 0), as)).id } }
  },
  deleteService: async (stage) => {
    const { as, serviceId } = await withToken(stage)
    return { as, input: { id: serviceId } }
  },
  deleteServiceToken: async (stage) => {
    const { as, serviceId } = await withToken(stage)
    return { as, input: { serviceId } }
  },
  disconnectService: (stage) => connected(stage),
  disconnectSharedService: (stage) => connected(stage, 'SHARED'),
  enableHostedService: async (stage) => ({ as: await admin(stage), input: { hosted: 'memory', slug: slug() } }),
  importServices: async (stage) => ({
    as: await admin(stage),
    input: { configuration: { mcpServers: Object.fromEntries(many(stage, () => [slug(), { url: upstream }])) } },
  }),
  publishCollection: async (stage) => collection(stage, await admin(stage)),
  registerPersistedOperation: async (stage) => ({ as: await admin(stage), input: registration(stage, 0) }),
  registerPersistedOperations: async (stage) => ({
    as: await admin(stage),
    input: { operations: many(stage, (n) => registration(stage, n)) },
  }),
  removeOAuthClient: async (stage) => {
    const { as, input } = await client(stage)
    await prepare(stage, 'setOAuthClient', input, as)
    return { as, input: { serviceId: input.serviceId } }
  },
  setOAuthClient: client,
  setToolAccess: async (stage) => {
    const { as, serviceId } = await service(stage)
    return { as, input: { serviceId, tool: 'echo', access: 'READ' } }
  },
  storeServiceToken: async (stage) => {
    const { as, serviceId } = await service(stage, 'PERSONAL')
    return { as, input: { serviceId, token } }
  },
  storeSharedToken: async (stage) => {
    const { as, serviceId } = await service(stage, 'SHARED')
    return { as, input: { serviceId, token } }
  },
  trustService: async (stage) => {
    const { as, serviceId } = await service(stage)
    return { as, input: { id: serviceId, trusted: true } }
  },
  updateMcpSettings: async (stage) => ({ as: await admin(stage), input: { blockSecrets: false } }),
  updateService: async (stage) => {
    const { as, serviceId } = await service(stage)
    return { as, input: { id: serviceId, name: 'Renamed' } }
  },
  withdrawCollection: async (stage) => {
    const as = await admin(stage)
    const { input } = await collection(stage, as)
    return { as, input: { id: (await prepare(stage, 'publishCollection', input, as)).id } }
  },
} // prettier-ignore

import { afterEach, describe, expect, it, vi } from 'vitest'
import { AppError } from '../../src/kernel/errors.ts'
import { ArgumentChecks } from '../../src/modules/gateway/argumentChecks.ts'
import { Breakers } from '../../src/modules/gateway/upstreamBreaker.ts'
import { Cancelled } from '../../src/modules/gateway/upstreamErrors.ts'
import { connect, mount, passage } from './peers/gateway.ts'
import { listen, type Peer } from './peers/http.ts'
import { startRecorder } from './peers/recorder.ts'

const opened: { close: () => Promise<void> }[] = []
const keep = <T extends { close: () => Promise<void> }>(thing: T): T => (opened.push(thing), thing)
afterEach(async () => {
  vi.useRealTimers()
  for (const thing of opened.splice(0).reverse()) await thing.close()
})

describe('arguments', () => {
  it('that the tool’s schema refuses never reach the upstream, and the caller is told where', async () => {
    const upstream = keep(await startRecorder('modern'))
    const mounted = keep(await mount())
    const calls = () => upstream.seen.filter(({ rpc }) => rpc === 'tools/call').length
    for (const mode of ['legacy', 'auto'] as const) {
      const client = await connect(mounted.door(passage({ url: upstream.url })), mode)
      for (const [args, path] of [[{ n: 'one' }, ['arguments', 'n']], [{}, ['arguments', 'n']], [undefined, ['arguments', 'n']]] as const) {
        const told: unknown = await client.callTool({ name: 'whoami', ...(args ? { arguments: args } : {}) }).catch((error: unknown) => error)
        expect(told).toMatchObject({ code: -32602, data: { code: 'BAD_USER_INPUT', issues: [{ path }] } })
        expect(mounted.records.at(-1)).toMatchObject({ tool: 'whoami', status: 'invalid_arguments' })
      } // prettier-ignore
      await client.close()
    }
    const call = mounted.gateway.callTool(passage({ url: upstream.url }), { name: 'whoami', arguments: { n: true }, requestId: 'r' }) // prettier-ignore
    await expect(call).rejects.toMatchObject({
      code: 'BAD_USER_INPUT',
      extensions: { issues: [{ path: ['arguments', 'n'] }] },
    })
    expect(calls()).toBe(0)
    const good = { name: 'whoami', arguments: { n: 1 }, requestId: 'r' }
    expect((await mounted.gateway.callTool(passage({ url: upstream.url }), good)).content).toHaveLength(1)
    expect(calls()).toBe(1)
  })

  const checks = () => {
    const warnings: string[] = []
    let now = 0
    const made = new ArgumentChecks(
      () => now,
      (reason) => warnings.push(reason),
    )
    return { made, warnings, later: (ms: number) => (now += ms) }
  }

  it('are named by path, without the value, in both dialects', () => {
    const { made } = checks()
    const schema = {
      type: 'object',
      properties: { to: { type: 'array', items: { type: 'string' } }, 'a/b~c': { const: 1 } },
      required: ['to'],
      additionalProperties: false,
    }
    for (const $schema of [undefined, 'http://json-schema.org/draft-07/schema#', 'https://json-schema.org/draft/2020-12/schema']) {
      const issues = (args: unknown) => made.issues({ ...schema, ...($schema ? { $schema } : {}) }, args)
      expect(issues({ to: ['x'] })).toEqual([])
      expect(issues({})[0]?.path).toEqual(['arguments', 'to'])
      expect(issues({ to: ['x', 7] })[0]?.path).toEqual(['arguments', 'to', '1'])
      expect(issues({ to: [], 'a/b~c': 'hunter2' })[0]?.path).toEqual(['arguments', 'a/b~c'])
      expect(JSON.stringify(issues({ to: [], 'a/b~c': 'hunter2' }))).not.toContain('hunter2')
      expect(issues({ to: [], other: 1 })[0]?.path).toEqual(['arguments', 'other'])
      expect(issues(JSON.parse('{"to":[],"__proto__":{"polluted":1}}'))[0]?.path).toEqual(['arguments', '__proto__'])
      expect(issues('text')[0]?.path).toEqual(['arguments'])
    } // prettier-ignore
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
    expect(made.issues({ required: ['constructor'] }, {})).toHaveLength(1)
  })

  it('are not held up by a hostile schema: it is ended in time, and after a while not used', () => {
    const { made, warnings, later } = checks()
    const doubling = Object.fromEntries(
      Array.from({ length: 40 }, (_, i) => [`d${i}`, { allOf: [{ $ref: `#/$defs/d${i + 1}` }, { $ref: `#/$defs/d${i + 1}` }] }]),
    ) // prettier-ignore
    // Some are of no use from the start; the others take too long each time, until they are left alone.
    const hostile: [object, unknown][] = [
      [{ properties: { x: { pattern: '^(a+)+$' } } }, { x: `${'a'.repeat(40)}!` }],
      [{ patternProperties: { '^(a|a)*$': true } }, { [`${'a'.repeat(40)}!`]: 1 }],
      [{ $defs: { ...doubling, d40: true }, $ref: '#/$defs/d0' }, {}],
      [{ $ref: '#' }, {}],
    ]
    for (const [schema, args] of hostile) {
      const started = performance.now()
      const told = Array.from({ length: 6 }, () => made.issues(schema, args))
      expect(performance.now() - started).toBeLessThan(20_000)
      const refused = told.filter(([issue]) => issue?.message === 'could not be checked in time')
      expect([0, 3]).toContain(refused.length)
      expect(told.slice(3)).toEqual([[], [], []])
    }
    expect(warnings.length).toBe(hostile.length)
    later(600_001)
    expect(made.issues(hostile[0]?.[0], { x: 'aaa' })).toEqual([])
  })

  it('are not checked by a schema that is too large, too deep, broken, or not there; and nothing is fetched', async () => {
    let asked = 0
    const elsewhere = keep(await listen((_, response) => (asked++, response.end('{}'))))
    const { made, warnings } = checks()
    const deep = Array.from({ length: 100 }).reduce<object>((inner) => ({ properties: { x: inner } }), { type: 'string' }) // prettier-ignore
    const useless: unknown[] = [
      { enum: Array.from({ length: 20_000 }, (_, i) => `value ${i}`) },
      deep,
      { $ref: elsewhere.url },
      { properties: { x: { $ref: 'file:///etc/passwd' } } },
      { type: 'nonsense' },
      { pattern: '(' },
      { properties: { x: { $async: true, type: 'number' } }, $defs: { y: { $async: true } }, $ref: '#/$defs/y' },
    ]
    for (const schema of useless) expect(made.issues(schema, { x: 1 })).toEqual([])
    expect(warnings).toHaveLength(useless.length)
    for (const nothing of [undefined, null, true, 'text']) expect(made.issues(nothing, {})).toEqual([])
    expect(asked).toBe(0)
    // A promise is no verdict: the root’s own wish for one is not heard.
    expect(made.issues({ $async: true, required: ['x'] }, {})).toHaveLength(1)
  })
})

describe('an upstream', () => {
  async function peer(answer: (n: number) => number | 'break'): Promise<Peer & { reached: () => number }> {
    let reached = 0
    const server = await listen((request, response) => {
      reached++
      const status = answer(reached)
      if (status === 'break') return void request.socket.destroy()
      response.writeHead(status).end()
    })
    return { ...keep(server), reached: () => reached }
  }
  const calls = async (url: string, times: number) => {
    const mounted = keep(await mount())
    const said: string[] = []
    for (let n = 0; n < times; n++)
      said.push(
        await mounted.gateway.callTool(passage({ url }), { name: 't', requestId: 'r' }).then(
          () => 'answered',
          (error: unknown) => (error as Error).message,
        ),
      )
    return said
  }

  it('that breaks off again and again is left alone for a while', async () => {
    const broken = await peer(() => 'break')
    const said = await calls(broken.url, 8)
    expect(said.slice(5)).toEqual(Array(3).fill('The service did not answer several times and is left alone for a moment.')) // prettier-ignore
    const before = broken.reached()
    expect(new Set(said.slice(0, 5)).size).toBe(1)
    expect(broken.reached()).toBe(before)
  })

  it.each([400, 401, 403, 404, 429, 500])('that answers %i is asked every time: that is no outage', async (status) => {
    const refusing = await peer(() => status)
    const said = await calls(refusing.url, 8)
    expect(said.join()).not.toContain('left alone')
    expect(refusing.reached()).toBeGreaterThanOrEqual(8)
  })

  it('is tried by one call when its pause is over, and by all when that one is answered', async () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    const breakers = new Breakers()
    const away = () => Promise.reject(Object.assign(new Error('refused'), { code: 'ECONNREFUSED' }))
    const run = (upstream: string, work: () => Promise<unknown>) => breakers.run(upstream, work).catch((error: unknown) => error) // prettier-ignore
    const gaveUp = () => Promise.reject(new Cancelled('gone'))
    for (let n = 0; n < 4; n++) await run('a', away)
    // Neither a caller who gives up nor what another upstream does counts here.
    for (let n = 0; n < 9; n++) expect(await run('a', gaveUp)).toBeInstanceOf(Cancelled)
    expect(await run('a', () => Promise.reject(new AppError('UPSTREAM_TIMEOUT', 'late')))).toMatchObject({ message: 'late' }) // prettier-ignore
    expect(await run('a', () => Promise.resolve('well'))).toMatchObject({ retryAfterSeconds: 5 })
    expect(await run('b', () => Promise.resolve('well'))).toBe('well')
    vi.setSystemTime(Date.now() + 61_000)
    let finish = (_: string): void => undefined
    const trying = run('a', () => new Promise<string>((resolve) => (finish = resolve)))
    expect(await run('a', () => Promise.resolve('well'))).toMatchObject({ code: 'UPSTREAM_ERROR' })
    finish('well')
    expect(await trying).toBe('well')
    expect(await run('a', () => Promise.resolve('well'))).toBe('well')
  })
})

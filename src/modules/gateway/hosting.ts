import { AppError } from '../../kernel/errors.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import { askEra } from './hostedEra.ts'
import { processTable } from './hostedFamily.ts'
import type { CatalogueEntry, Ending, Tenancy } from './hostedProcess.ts'
import { HostedService } from './hostedService.ts'
import { redact } from './redaction.ts'
import type { Fetch, UpstreamTarget } from './types.ts'
import { abandonable } from './upstreamDeadline.ts'
import { upstreamError } from './upstreamErrors.ts'
import type { Era } from './upstreamVerdicts.ts'

type Slot = {
  name: string
  entry: CatalogueEntry
  /** Service and user: there is one process for each. */
  place: string
  /** Names the version of the service and of the credential that the process was started with. */
  key: string
  tenancy: Tenancy
  starting?: Promise<HostedService>
  service?: HostedService
}
type Failures = { count: number; notBefore: number }

const ordinary: readonly Ending[] = ['idle', 'lifetime', 'closed']
const firstPauseMs = 1000
const longestPauseMs = 60_000
/** A process that lived this long did not fail for the reason that the ones before it did. */
const soundMs = 60_000
const judgeEveryMs = 1000
const maxFailures = 10_000

/** The processes of this instance: one for each hosted service and user, so that nobody's state or credential meets another's. */
export class Hosting {
  readonly #platform: Platform
  readonly #slots = new Map<string, Slot>()
  readonly #failures = new Map<string, Failures>()
  readonly #eras = new Map<string, Era>()
  readonly #ending = new Set<Promise<void>>()
  #judge: NodeJS.Timeout | undefined
  #closed = false

  constructor(platform: Platform) {
    this.#platform = platform
  }

  /** The way to a service of the operator's catalogue, for one user. Nothing runs before it is used. */
  target(name: string, key: string, tenancy: Tenancy): UpstreamTarget {
    const entry = this.#platform.config.catalogue?.services[name]
    if (!entry) throw new AppError('SERVICE_UNCONFIGURED', 'The operator no longer offers this service.')
    const own = `${key}/${tenancy.userId}`
    const place = `${tenancy.serviceId}/${tenancy.userId}`
    const reach: Fetch = async (url, init) => {
      const service = await this.#service({ name, entry, place, key: own, tenancy }, init)
      return service ? service.fetch(url, init) : new Response(null, { status: 404 })
    }
    // The address is never dialled: `.invalid` has no host (RFC 6761).
    return { key: own, endpoint: new URL(`http://${name}.hosted.invalid/mcp`), headers: new Map(), reach }
  }

  async close(): Promise<void> {
    this.#closed = true
    clearInterval(this.#judge)
    await Promise.all([...this.#slots.values()].map((slot) => this.#stop(slot, 'closed')))
    await Promise.all(this.#ending)
  }

  async #service(wanted: Slot, { method, headers, signal }: RequestInit = {}): Promise<HostedService | undefined> {
    const { place, key, tenancy } = wanted
    const held = this.#slots.get(place)
    if (held?.starting && held.key === key && !held.service?.ending)
      return abandonable(held.starting, signal ?? undefined)
    // What goes on with a session that has ended, or wants its events, starts nothing.
    if (method !== 'POST' || new Headers(headers).has('mcp-session-id')) return undefined
    if (held) void this.#stop(held, 'closed')
    this.#assertMayStart(place, tenancy)
    this.#slots.set(place, wanted)
    wanted.starting = this.#start(wanted)
    wanted.starting.then(
      (service) => (wanted.service = service),
      () => this.#leave(wanted),
    )
    this.#judge ??= setInterval(() => void this.#judgeAll(), judgeEveryMs).unref()
    return abandonable(wanted.starting, signal ?? undefined)
  }

  #assertMayStart(place: string, { organizationId }: Tenancy): void {
    if (this.#closed) throw new AppError('SERVICE_UNAVAILABLE', 'The gateway is shutting down.')
    const waitMs = (this.#failures.get(place)?.notBefore ?? 0) - Date.now()
    if (waitMs > 0)
      throw new AppError('UPSTREAM_ERROR', 'The service has ended unexpectedly and is started again in a moment.', {
        retryAfterSeconds: Math.ceil(waitMs / 1000),
        extensions: { retryAfterSeconds: Math.ceil(waitMs / 1000) },
      })
    const { maxProcesses = 0, maxProcessesPerOrganization = 0 } = this.#platform.config.catalogue ?? {}
    const all = [...this.#slots.values()]
    const own = all.filter(({ tenancy }) => tenancy.organizationId === organizationId)
    if (own.length >= maxProcessesPerOrganization) this.#makeRoom(own)
    else if (all.length >= maxProcesses) this.#makeRoom(all)
  }

  /** The process that was used longest ago makes room, but never one that is at work. */
  #makeRoom(among: readonly Slot[]): void {
    const idle = among.flatMap((slot) => (slot.service && !slot.service.busy ? [{ slot, at: slot.service.lastUsedAt }] : []))
    const [oldest] = idle.sort((a, b) => a.at - b.at)
    if (!oldest)
      throw new AppError('SERVICE_UNAVAILABLE', 'Too many hosted services are in use at once.', { retryAfterSeconds: 5 })
    void this.#stop(oldest.slot, 'closed')
  } // prettier-ignore

  async #start(slot: Slot): Promise<HostedService> {
    const { name, entry, place, tenancy } = slot
    const startedAt = Date.now()
    const onEnd = (why: Ending): void => {
      this.#leave(slot)
      if (ordinary.includes(why)) return
      this.#failed(place, Date.now() - startedAt)
      this.#platform.log.warn({ hosted: name, why, serviceId: tenancy.serviceId }, 'a hosted service ended')
    }
    const onSaid = (text: string): void => {
      const secret = tenancy.credential?.reveal()
      const said = redact(secret ? text.replaceAll(secret, '****') : text)
      this.#platform.log.debug({ hosted: name, said }, 'a hosted service wrote to its standard error')
    }
    try {
      const known = this.#eras.get(name) ?? (await askEra(entry, tenancy))
      if (known) this.#eras.set(name, known)
      return await HostedService.start({ entry, tenancy, era: known ?? 'legacy', onSaid, onEnd })
    } catch (error) {
      this.#failed(place, 0)
      throw upstreamError('The service could not be started.', error)
    }
  }

  #leave(slot: Slot): void {
    if (this.#slots.get(slot.place) === slot) this.#slots.delete(slot.place)
    if (this.#slots.size > 0) return
    clearInterval(this.#judge)
    this.#judge = undefined
  }

  #failed(place: string, livedMs: number): void {
    const count = livedMs > soundMs ? 1 : (this.#failures.get(place)?.count ?? 0) + 1
    const pauseMs = Math.min(firstPauseMs * 2 ** (count - 1), longestPauseMs)
    this.#failures.delete(place)
    this.#failures.set(place, { count, notBefore: Date.now() + pauseMs })
    const [oldest] = this.#failures.keys()
    if (this.#failures.size > maxFailures && oldest !== undefined) this.#failures.delete(oldest)
  }

  #stop(slot: Slot, why: Ending): Promise<void> {
    this.#leave(slot)
    const ending: Promise<void> = Promise.resolve(slot.starting)
      .then((service) => service?.stop(why))
      .catch(() => undefined)
      .finally(() => this.#ending.delete(ending))
    this.#ending.add(ending)
    return ending
  }

  async #judgeAll(): Promise<void> {
    const table = await processTable().catch(() => [])
    for (const { service } of this.#slots.values()) service?.judge(table)
  }
}

export const hosting = resource((platform) => new Hosting(platform))

import { randomUUID } from 'node:crypto'
import ipaddr from 'ipaddr.js'
import type { Origin } from '../kernel/actor.ts'

type Network = readonly [ipaddr.IPv4 | ipaddr.IPv6, number]

const within = (address: string, networks: readonly Network[]): boolean => {
  if (!ipaddr.isValid(address)) return false
  const parsed = ipaddr.process(address)
  return networks.some(([network, bits]) => parsed.kind() === network.kind() && parsed.match(network, bits))
}

/**
 * Where a request comes from. `X-Forwarded-For` is read from the right, and only as far as the proxies are trusted: what
 * a stranger wrote in front of it is never believed.
 */
export function originReader(
  trustedProxies: readonly string[],
): (request: Request, remoteAddress: string | null) => Origin {
  const networks = trustedProxies.map((cidr) => ipaddr.parseCIDR(cidr))
  return (request, remoteAddress) => {
    let ip = remoteAddress
    const forwarded = request.headers.get('x-forwarded-for')?.split(',').map((part) => part.trim()) ?? [] // prettier-ignore
    while (ip && within(ip, networks) && forwarded.length) {
      const next = forwarded.pop() ?? ''
      if (!ipaddr.isValid(next)) break
      ip = next
    }
    const plain = ip && ipaddr.isValid(ip) ? ipaddr.process(ip).toString() : null
    return { ip: plain, userAgent: request.headers.get('user-agent')?.slice(0, 300) ?? null, requestId: randomUUID() }
  }
}

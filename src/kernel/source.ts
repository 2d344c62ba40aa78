import ipaddr from 'ipaddr.js'
import { isMember, type Actor, type Origin } from './actor.ts'

/**
 * What limits and locks take for one sender: an IPv4 address, or the /64 that an IPv6 host picks its addresses from
 * (RFC 4291, section 2.5.4), since counting single ones would leave a stranger 2^64 fresh starts.
 */
export function sourceOf({ ip }: Pick<Origin, 'ip'>): string {
  if (!ip || !ipaddr.isValid(ip)) return 'unknown'
  const address = ipaddr.process(ip)
  if (address.kind() === 'ipv4') return address.toString()
  const network = (address as ipaddr.IPv6).parts.slice(0, 4).map((part) => part.toString(16))
  return `${network.join(':')}::/64`
}

/** Whose turn it is in a queue: an organisation's, or, for who acts in none, the sender's. */
export const tenantOf = (actor: Actor): string => (isMember(actor) ? actor.orgId : sourceOf(actor.origin))

/** Whether the address lies in one of the networks. Without an address, in none. */
export function isWithin({ ip }: Pick<Origin, 'ip'>, cidrs: readonly string[]): boolean {
  if (!ip || !ipaddr.isValid(ip)) return false
  const address = ipaddr.process(ip)
  return cidrs.some((text) => {
    const [network, bits] = ipaddr.parseCIDR(text)
    return network.kind() === address.kind() && address.match(network as ipaddr.IPv4 & ipaddr.IPv6, bits)
  })
}

/** Whether every address of the inner network lies in the outer one. */
export function contains(outer: string, inner: string): boolean {
  const [network, bits] = ipaddr.parseCIDR(outer)
  const [base, innerBits] = ipaddr.parseCIDR(inner)
  return network.kind() === base.kind() && innerBits >= bits && base.match(network as ipaddr.IPv4 & ipaddr.IPv6, bits)
}

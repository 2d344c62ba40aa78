import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'
import { AppError } from './errors.ts'

type Address = ipaddr.IPv4 | ipaddr.IPv6
type Cidr = [Address, number]

/** The one public answer to every forbidden target: it names no host and no address, so that nobody can map a network by it. */
export const addressRefused = (detail: string): AppError =>
  new AppError('UPSTREAM_ERROR', 'The upstream address is not allowed.', { cause: new Error(detail) })

const cidrs = (...list: string[]): Cidr[] => list.map((text) => ipaddr.parseCIDR(text))

// IANA IPv4 Special-Purpose Address Registry (RFC 6890), multicast (RFC 5771) and reserved space (RFC 1112 §4).
const specialIPv4 = cidrs(
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16', // link-local, and the metadata service of most clouds
  '172.16.0.0/12',
  '192.0.0.0/24', // IETF protocol assignments, and Oracle Cloud's metadata service
  '192.0.2.0/24',
  '192.31.196.0/24', // AS112-v4
  '192.52.193.0/24', // AMT
  '192.88.99.0/24', // 6to4 relay anycast, deprecated by RFC 7526
  '192.168.0.0/16',
  '192.175.48.0/24', // direct delegation AS112
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/4',
  '240.0.0.0/4',
  '168.63.129.16/32', // public by number, yet Azure serves its platform channel to every virtual machine there
)

// IANA has given out global unicast from 2000::/3 alone (RFC 4291 §2.4), so all else, ::/96 and fc00::/7 included, is refused unlisted.
const globalIPv6 = cidrs('2000::/3')
const specialIPv6 = cidrs(
  '2001::/23', // IETF protocol assignments: Teredo, benchmarking, AMT, AS112-v6, ORCHID, drone tags
  '2001:db8::/32',
  '2002::/16', // 6to4 reaches whatever IPv4 address it wraps
  '2620:4f:8000::/48', // direct delegation AS112
  '3fff::/20', // documentation, RFC 9637
)

// RFC 6052 §2.1. The local-use prefix 64:ff9b:1::/48 (RFC 8215) may wrap anything in any place, so it is refused whole.
const wellKnownNat64 = cidrs('64:ff9b::/96')

const inside = (address: Address, list: readonly Cidr[]): boolean =>
  list.some((range) => range[0].kind() === address.kind() && address.match(range))

const last32Bits = (address: Address): ipaddr.IPv4 => new ipaddr.IPv4(address.toByteArray().slice(-4))

function globallyRoutable(address: Address): boolean {
  if (address.kind() === 'ipv4') return !inside(address, specialIPv4)
  // A network with NAT64 reaches public IPv4 hosts only so; the translator sends the packet to the wrapped address.
  if (inside(address, wellKnownNat64)) return globallyRoutable(last32Bits(address))
  return inside(address, globalIPv6) && !inside(address, specialIPv6)
}

/** `::ffff:10.0.0.1` and `10.0.0.1` are one destination to the kernel, so the operator's word for the one covers the other. */
const unmapped = (address: Address): Address =>
  address instanceof ipaddr.IPv6 && address.isIPv4MappedAddress() ? address.toIPv4Address() : address

/** ipaddr.js reads the IPv4-compatible `::10.0.0.1` as the IPv4-mapped `::ffff:10.0.0.1`; the URL parser's hexadecimal spelling leaves no doubt. */
const parseAddress = (text: string): Address =>
  ipaddr.parse(isIP(text) === 6 ? new URL(`http://[${text}]`).hostname.slice(1, -1) : text)

function parseAllowedCidr(text: string): Cidr {
  // ipaddr.js also reads `010.0.0.0/8` and `10.1/16`; an operator who writes those means something else than it would grant.
  const [base = '', prefix = ''] = text.split('/')
  if (isIP(base) === 0 || base.includes('%') || !ipaddr.isValidCIDR(text))
    throw new TypeError(`Not a CIDR, such as 10.1.0.0/16: ${text}`)
  return [parseAddress(base), Number(prefix)]
}

export type Scheme = 'http:' | 'https:'

/** Whether a connection to this resolved address may be opened for this scheme. */
export type AddressRule = (address: string, scheme: Scheme) => boolean

/**
 * The rule for every outgoing connection:
 * - an address inside a CIDR that the operator allows: `https` and `http`;
 * - any other globally routable unicast address: `https` only, so that no cleartext leaves for the public net;
 * - everything else: never.
 *
 * A broad CIDR also covers the metadata addresses inside it (169.254.169.254, fd00:ec2::254); name the networks you mean.
 */
export function addressRule(allowedCidrs: readonly string[]): AddressRule {
  const allowed = allowedCidrs.map(parseAllowedCidr)
  return (text, scheme) => {
    // Only the canonical spellings that a resolver gives; `0x7f.1` is no address here, and a zone names a local link.
    if (isIP(text) === 0 || text.includes('%')) return false
    const address = parseAddress(text)
    if (inside(address, allowed) || inside(unmapped(address), allowed)) return true
    return scheme === 'https:' && globallyRoutable(address)
  }
}

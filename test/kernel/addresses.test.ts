import fc from 'fast-check'
import ipaddr from 'ipaddr.js'
import { describe, expect, it } from 'vitest'
import { addressRule } from '../../src/kernel/addresses.ts'

const byte = fc.integer({ min: 0, max: 255 })
const anyAddress = fc
  .oneof(fc.array(byte, { minLength: 4, maxLength: 4 }), fc.array(byte, { minLength: 16, maxLength: 16 }))
  .map((bytes) => ipaddr.fromByteArray(bytes))

describe('the address rule', () => {
  const permits = addressRule([])

  it.each(['1.1.1.1', '8.8.8.8', '93.184.216.34', '172.15.255.255', '172.32.0.0', '100.63.255.255', '100.128.0.0'])(
    'lets https reach the public IPv4 address %s, and http not',
    (address) => {
      expect(permits(address, 'https:')).toBe(true)
      expect(permits(address, 'http:')).toBe(false)
    },
  )

  it.each(['2606:4700:4700::1111', '2a00:1450:4001:81b::200e', '2001:4860:4860::8888', '64:ff9b::8.8.8.8'])(
    'lets https reach the public IPv6 address %s, and http not',
    (address) => {
      expect(permits(address, 'https:')).toBe(true)
      expect(permits(address, 'http:')).toBe(false)
    },
  )

  it.each(['0x7f000001', '127.1', '2130706433', '', 'localhost', '8.8.8.8 ', '2606:4700::1%eth0', 'fe80::1%1'])(
    'takes %j for no address at all, however a resolver came to answer it',
    (text) => expect(permits(text, 'https:')).toBe(false),
  )

  it('refuses whatever an independent classification does not call unicast', () => {
    const special = anyAddress.filter((address) => address.range() !== 'unicast' && address.range() !== 'rfc6052')
    fc.assert(fc.property(special, (address) => !permits(address.toString(), 'https:')))
  })

  it('refuses every IPv6 address outside 2000::/3', () => {
    const outside = anyAddress.filter((a) => a instanceof ipaddr.IPv6 && a.toByteArray()[0]! >> 5 !== 1)
    fc.assert(fc.property(outside, (a) => !permits(a.toString(), 'https:') || a.range() === 'rfc6052'))
  })

  it('judges a NAT64 address by the IPv4 address that it wraps', () => {
    const wrapped = fc.array(byte, { minLength: 4, maxLength: 4 }).map((bytes) => new ipaddr.IPv4(bytes))
    fc.assert(
      fc.property(wrapped, (v4) => permits(`64:ff9b::${v4.toString()}`, 'https:') === permits(v4.toString(), 'https:')),
    )
  })
})

describe('networks that the operator allows', () => {
  it('opens them to http and https, and nothing beside them', () => {
    const permits = addressRule(['10.1.0.0/16', 'fd12:3456::/32'])
    for (const address of ['10.1.0.0', '10.1.255.255', '::ffff:10.1.2.3', 'fd12:3456::1']) {
      expect(permits(address, 'https:')).toBe(true)
      expect(permits(address, 'http:')).toBe(true)
    }
    for (const address of ['10.0.255.255', '10.2.0.0', '127.0.0.1', '::ffff:10.2.0.0', '::10.1.0.1', 'fd12:3457::1'])
      expect(permits(address, 'https:')).toBe(false)
  })

  it('does not open what a translator or a tunnel might reach in them', () => {
    const permits = addressRule(['10.0.0.0/8'])
    for (const address of ['64:ff9b::10.0.0.1', '64:ff9b:1::10.0.0.1', '2002:a00:1::', '::10.0.0.1'])
      expect(permits(address, 'https:')).toBe(false)
  })

  it.each([
    '10.0.0.0',
    '010.0.0.0/8',
    '10.1/16',
    '0x7f000000/8',
    '10.0.0.0/33',
    'fe80::/129',
    'fe80::1%1/64',
    '10.0.0.0/8/8',
    'localhost/8',
    '',
    '/8',
  ])('refuses to start with %j, and says so', (text) => expect(() => addressRule([text])).toThrow(/Not a CIDR/))
})

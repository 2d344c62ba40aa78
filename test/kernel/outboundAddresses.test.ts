import fc from 'fast-check'
import ipaddr from 'ipaddr.js'
import { describe, expect, it } from 'vitest'
import type { OutboundOptions } from '../../src/kernel/outbound.ts'
import { loopbackServer } from './loopbackServer.ts'
import { notAllowed, openOutbound } from './openOutbound.ts'

const open = (options: Partial<OutboundOptions> = {}) => openOutbound({ allowedCidrs: [], ...options })

// Linux answers on all of 127.0.0.0/8; elsewhere only one IPv4 loopback address is sure to exist.
const otherLoopback = process.platform === 'linux' ? '127.0.0.2' : '::1'

// Each is one host as a URL may spell it; those that name loopback are tried against a listening server.
const forbiddenHosts = `
  127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0x7f.0x0.0x0.0x1 0177.0.0.1 017700000001 0X7F.1 127.0.0.1.
  127.255.255.254 127%2e0%2e0%2e1 %31%32%37.0.0.1 127。0。0。1 １２７.０.０.１ ①②⑦.0.0.1 [::1] [0:0:0:0:0:0:0:1]
  [0000:0000:0000:0000:0000:0000:0000:0001] [::ffff:127.0.0.1] [::ffff:7f00:1] [0:0:0:0:0:FFFF:7F00:0001]
  [::127.0.0.1] [::7f00:1] 0.0.0.0 0 0x0 0.1.2.3 [::] 10.0.0.1 167772161 0xa.1 012.0.0.1 10.255.255.255
  172.16.0.1 172.31.255.255 0xac100001 192.168.0.1 192.168.257 0xc0a80001 100.64.0.1 100.127.255.255
  100.100.100.200 169.254.169.254 2852039166 0xa9fea9fe 0251.0376.0251.0376 169.254.43518
  [::ffff:169.254.169.254] [::ffff:a9fe:a9fe] [fd00:ec2::254] [FD00:EC2:0:0:0:0:0:254] [fd20:ce::254]
  192.0.0.192 168.63.129.16 192.0.2.1 198.51.100.1 203.0.113.1 198.18.0.1 192.88.99.1 224.0.0.1
  239.255.255.255 240.0.0.1 255.255.255.255 4294967295 0xffffffff [fe80::1] [febf::1] [fec0::1] [fc00::1]
  [fdff::1] [ff02::1] [ff05::2] [100::1] [2001:db8::1] [3fff::1] [2002:7f00:1::] [2002:808:808::1] [2001::1]
  [2001:0:4136:e378:8000:63bf:3fff:fdd2] [64:ff9b::127.0.0.1] [64:ff9b::a00:1] [64:ff9b::a9fe:a9fe]
  [64:ff9b:1::7f00:1] [64:ff9b:1::808:808] [::ffff:8.8.8.8] [::8.8.8.8] [::ffff:0:127.0.0.1] [5f00::1]
  [4000::1] [2001:10::1] [2001:20::1]
`
  .trim()
  .split(/\s+/)

describe('an address in the URL', () => {
  it.each(forbiddenHosts)('is refused when it is %s', async (host) => {
    const server = await loopbackServer((_, response) => response.end('reached'))
    const { fetch } = open()
    for (const scheme of ['http', 'https'])
      await expect(fetch(`${scheme}://${host}:${server.port}/`)).rejects.toMatchObject(notAllowed)
    expect(server.connections()).toBe(0)
  })

  it('is reached when the operator allows it', async () => {
    const server = await loopbackServer((_, response) => response.end('reached'))
    const { fetch } = open({ allowedCidrs: ['127.0.0.0/8'] })
    for (const host of ['127.0.0.1', '2130706433', '0x7f.1', '[::ffff:7f00:1]'])
      expect(await (await fetch(`http://${host}:${server.port}/`)).text()).toBe('reached')
  })

  it('says nothing of the target in public', async () => {
    const error: unknown = await open()
      .fetch('https://10.11.12.13:8443/secret')
      .catch((reason: unknown) => reason)
    expect(JSON.stringify(error) + String(error)).not.toMatch(/10\.11|8443|secret/)
  })

  it.each(['http://93.184.216.34/', 'http://[2606:4700:4700::1111]/'])('is refused in cleartext: %s', async (url) => {
    await expect(open().fetch(url)).rejects.toMatchObject(notAllowed)
  })

  it.each([
    'ftp://127.0.0.1/',
    'file:///etc/passwd',
    'data:,x',
    'blob:https://a/b',
    'gopher://a/',
    'about:blank',
    'http://',
    '/x',
  ])('is refused when the URL is %s', async (url) => {
    await expect(open({ allowedCidrs: ['127.0.0.0/8'] }).fetch(url)).rejects.toMatchObject(notAllowed)
  })

  it.each(['http://user:pw@127.0.0.1', 'http://user@127.0.0.1', 'http://:pw@127.0.0.1'])(
    'is refused with credentials before it: %s',
    async (url) => {
      const server = await loopbackServer((_, response) => response.end())
      await expect(open({ allowedCidrs: ['127.0.0.0/8'] }).fetch(`${url}:${server.port}`)).rejects.toMatchObject(
        notAllowed,
      )
      expect(server.connections()).toBe(0)
    },
  )
})

const blockedV4 = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
]
  .concat(
    '192.0.2.0/24',
    '192.168.0.0/16',
    '198.18.0.0/15',
    '198.51.100.0/24',
    '203.0.113.0/24',
    '224.0.0.0/4',
    '240.0.0.0/4',
  )
  .map((text) => ipaddr.parseCIDR(text))
const blockedV6 = [
  '::/96',
  '::ffff:0:0/96',
  '64:ff9b:1::/48',
  '100::/64',
  '2001::/32',
  '2001:db8::/32',
  '2002::/16',
  '3fff::/20',
]
  .concat(
    'fc00::/7',
    'fe80::/10',
    'fec0::/10',
    'ff00::/8',
    '64:ff9b::7f00:0/104',
    '64:ff9b::a00:0/104',
    '64:ff9b::c0a8:0/112',
  )
  .map((text) => ipaddr.parseCIDR(text))

/** A random address inside a random one of the networks: the network's bits, then random ones. */
const bytesWithin = (ranges: [ipaddr.IPv4 | ipaddr.IPv6, number][]) =>
  fc.constantFrom(...ranges).chain(([base, prefix]) => {
    const network = base.toByteArray()
    const hostBits = fc.array(fc.integer({ min: 0, max: 255 }), {
      minLength: network.length,
      maxLength: network.length,
    })
    const mask = (i: number) => 0xff & (0xff00 >> Math.min(8, Math.max(0, prefix - 8 * i)))
    return hostBits.map((random) => network.map((byte, i) => (byte & mask(i)) | (random[i]! & ~mask(i) & 0xff)))
  })

const number = (bytes: number[]) => bytes.reduce((sum, byte) => sum * 256 + byte, 0)
const hex4 = (bytes: number[]) =>
  number(bytes)
    .toString(16)
    .padStart(8, '0')
    .replace(/(.{4})(.{4})/, '$1:$2')
const inBase = fc.constantFrom(
  (n: number) => `${n}`,
  (n: number) => `0x${n.toString(16)}`,
  (n: number) => `0${n.toString(8)}`,
)
const trailingDot = fc.constantFrom('', '.')

/** One to four parts, each decimal, hexadecimal or octal; or an IPv6 address that wraps the four bytes. */
const spelledV4 = (bytes: number[]) =>
  fc.oneof(
    fc
      .tuple(fc.integer({ min: 0, max: 3 }), fc.array(inBase, { minLength: 4, maxLength: 4 }), trailingDot)
      .map(([split, bases, dot]) => {
        const parts = [...bytes.slice(0, split), number(bytes.slice(split))]
        return parts.map((part, i) => bases[i]!(part)).join('.') + dot
      }),
    fc
      .constantFrom('::ffff:', '::', '64:ff9b::', '64:ff9b:1::', '0:0:0:0:0:FFFF:', '::ffff:0:')
      .chain((prefix) => fc.constantFrom(`[${prefix}${bytes.join('.')}]`, `[${prefix}${hex4(bytes)}]`)),
    fc.constantFrom(`[2002:${hex4(bytes)}::1]`, bytes.join('%2E'), bytes.join('。')),
  )

const spelledV6 = (bytes: number[]) => {
  const address = new ipaddr.IPv6(bytes)
  const full = address.parts.map((part) => part.toString(16).padStart(4, '0')).join(':')
  return fc
    .constantFrom(address.toString(), address.toNormalizedString(), full, full.toUpperCase())
    .map((text) => `[${text}]`)
}

describe('every address of a blocked network', () => {
  it('is refused in the URL, in any spelling', async () => {
    const { fetch } = open()
    const host = fc.oneof(bytesWithin(blockedV4).chain(spelledV4), bytesWithin(blockedV6).chain(spelledV6))
    await fc.assert(
      fc.asyncProperty(host, fc.constantFrom('http', 'https'), async (spelling, scheme) => {
        await expect(fetch(`${scheme}://${spelling}/`)).rejects.toMatchObject(notAllowed)
      }),
      { numRuns: 500 },
    )
  })

  it('is refused as the answer of a name', async () => {
    const answers = fc.array(fc.oneof(bytesWithin(blockedV4), bytesWithin(blockedV6)), { minLength: 1, maxLength: 4 })
    let answer: string[] = []
    const { fetch } = open({ resolve: () => Promise.resolve(answer) })
    await fc.assert(
      fc.asyncProperty(answers, async (addresses) => {
        answer = addresses.map((bytes) => ipaddr.fromByteArray(bytes).toString())
        await expect(fetch('https://upstream.example/')).rejects.toMatchObject(notAllowed)
      }),
      { numRuns: 200 },
    )
  })
})

describe('a name', () => {
  it('is refused when it resolves to loopback, by the real resolver too', async () => {
    const server = await loopbackServer((_, response) => response.end())
    for (const name of ['localhost', 'LOCALHOST'])
      await expect(open().fetch(`https://${name}:${server.port}/`)).rejects.toMatchObject(notAllowed)
    expect(server.connections()).toBe(0)
  })

  it('is connected to at the answers that were permitted, and at no other', async () => {
    const allowed = await loopbackServer((_, response) => response.end('allowed'))
    const forbidden = await loopbackServer((_, response) => response.end('forbidden'), {
      host: otherLoopback,
      port: allowed.port,
    })
    const resolve = () => Promise.resolve([otherLoopback, '10.0.0.1', '127.0.0.1'])
    const { fetch } = open({ allowedCidrs: ['127.0.0.1/32'], resolve })
    expect(await (await fetch(`http://upstream.example:${allowed.port}/`)).text()).toBe('allowed')
    expect(forbidden.connections()).toBe(0)
  })

  it('is looked up once a connection: a second answer has nothing to change', async () => {
    const allowed = await loopbackServer((_, response) => response.setHeader('connection', 'close').end('allowed'))
    const forbidden = await loopbackServer((_, response) => response.end('forbidden'), {
      host: otherLoopback,
      port: allowed.port,
    })
    const answers = [['127.0.0.1'], [otherLoopback]]
    let lookUps = 0
    const { fetch } = open({
      allowedCidrs: ['127.0.0.1/32'],
      resolve: () => Promise.resolve(answers[lookUps++] ?? [otherLoopback]),
    })
    const url = `http://rebinding.example:${allowed.port}/`

    const first = await fetch(url)
    expect(lookUps).toBe(1)
    expect(await first.text()).toBe('allowed')
    await expect(fetch(url)).rejects.toMatchObject(notAllowed)
    expect(lookUps).toBe(2)
    expect(forbidden.connections()).toBe(0)
  })

  it('that first answers a public address and then loopback never reaches loopback', async () => {
    const server = await loopbackServer((_, response) => response.end())
    let lookUps = 0
    const resolve = () => Promise.resolve(lookUps++ === 0 ? ['93.184.216.34'] : ['127.0.0.1'])
    const { fetch } = open({ resolve })
    // Cleartext to a public address is refused before a packet leaves, so no stranger is called by this test.
    for (let attempt = 0; attempt < 4; attempt++)
      await expect(fetch(`http://rebinding.example:${server.port}/`)).rejects.toMatchObject(notAllowed)
    expect(lookUps).toBe(4)
    expect(server.connections()).toBe(0)
  })

  it('is refused when it resolves to nothing, or to what is no address', async () => {
    for (const answer of [[], ['0x7f000001'], ['localhost'], ['fe80::1%lo']])
      await expect(open({ resolve: () => Promise.resolve(answer) }).fetch('https://a.example/')).rejects.toMatchObject(
        notAllowed,
      )
  })

  it('that cannot be resolved is an upstream error without its name', async () => {
    const resolve = () => Promise.reject(new Error('ENOTFOUND internal-name.example'))
    const error: unknown = await open({ resolve })
      .fetch('https://internal-name.example/')
      .catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'UPSTREAM_ERROR' })
    expect(String(error)).not.toContain('internal-name')
  })
})

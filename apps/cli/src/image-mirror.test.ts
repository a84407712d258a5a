/** Mirrors as a user names them: by option, environment and configuration; and what is said where there is no package client. */

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { cli, stackTrace } from './testing/cli.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-mirror-'))
const empty = createServer((request, response) => {
  asked.push(request.url!)
  response.writeHead(404).end()
})
const asked: string[] = []
let port = 0
const mirror = (name: string): string => `http://127.0.0.1:${port}/${name}`
beforeAll(async () => {
  await new Promise<void>((resolve) => empty.listen(0, '127.0.0.1', resolve))
  port = (empty.address() as AddressInfo).port
  writeFileSync(
    join(folder, 'stack.yaml'),
    `apiVersion: nonroot/v1\nextends: nonroot/stacks/kvm-like.yaml\nimage: { mirror: '${mirror('file')}', keyring: ./none.gpg }\n`,
  )
})
afterAll(() => {
  empty.close()
  rmSync(folder, { recursive: true })
})
const before = { ...process.env }
const restore = (): void => {
  for (const name of ['PATH', 'NONROOT_CACHE', 'NONROOT_MIRROR'])
    if (before[name] === undefined) delete process.env[name]
    else process.env[name] = before[name]
}
beforeEach(() => {
  asked.length = 0
  delete process.env['NONROOT_MIRROR']
  Object.assign(process.env, { PATH: folder, NONROOT_CACHE: join(folder, 'cache') })
})
afterEach(restore)

const image = ['image', 'debian']
const command = ['--', 'true']
const stack = (): string => join(folder, 'stack.yaml')

describe('where there is no apt', () => {
  it('names the ways to an image, and fetches nothing', async () => {
    const { status, err } = await cli(...image)
    expect([status, err]).toEqual([3, expect.stringMatching(/there is no apt-cache here\n {2}name a mirror of Debian with --mirror URL or NONROOT_MIRROR \(https:\/\/www\.debian\.org\/mirror\/list lists them\), or give a kernel/)])
    expect(err).not.toMatch(stackTrace)
    expect(asked).toEqual([])
  })

  it.each([
    { by: '--mirror', args: () => [...image, '--mirror', mirror('option')], asks: 'option' },
    { by: 'several', args: () => [...image, '--mirror', mirror('a'), '--mirror', mirror('b/')], asks: 'a' },
    { by: 'NONROOT_MIRROR', args: () => image, variable: 'variable', asks: 'variable' },
    { by: 'an option before the variable', args: () => [...image, '--mirror', mirror('option')], variable: 'variable', asks: 'option' },
    { by: 'run --mirror', args: () => ['run', '--mirror', mirror('option'), ...command], asks: 'option' },
    { by: 'the variable before a file', args: () => ['run', stack(), '--set', 'image.keyring=/dev/null', ...command], variable: 'variable', says: /no OpenPGP public keys|has no dists/, asks: 'variable' },
    { by: 'a disk', args: () => [...image, '--rootfs', '--mirror', mirror('option')], asks: 'option' },
  ])('asks the mirror named by $by', async ({ args, variable, says = /error: http.* has no dists\/bookworm\/InRelease\n {2}give the address/, asks }) => {
    if (variable) process.env['NONROOT_MIRROR'] = ` ${mirror(variable)}  `
    const { status, err } = await cli(...args())
    expect([status, err]).toEqual([3, expect.stringMatching(says)])
    expect(err).not.toMatch(stackTrace)
    expect(asked[0]).toBe(`/${asks}/dists/bookworm/InRelease`)
  })

  it('reads keyrings beside the file that names them', async () => {
    const { status, err } = await cli('run', stack(), ...command)
    expect([status, err]).toEqual([3, expect.stringContaining(`cannot read the keyring ${join(folder, 'none.gpg')}`)])
  })

  it.each([
    { what: 'a keyring without a mirror', args: [...image, '--keyring', 'x'], status: 2, says: /--keyring is for mirrors, and none is named/ },
    { what: 'a keyring that is not there', args: [...image, '--mirror', 'http://x.invalid', '--keyring', join(folder, 'x')], status: 3, says: /cannot read the keyring .*x: ENOENT/ },
    { what: 'a keyring for a disk', args: [...image, '--rootfs', '--mirror', 'http://x.invalid', '--keyring', 'x'], status: 2, says: /--keyring is for an initramfs/ },
    { what: 'what is no address', args: [...image, '--mirror', 'debian.example'], status: 2, says: /"debian\.example" is not the address of a mirror/ },
  ])('refuses $what', async ({ args, status, says }) => {
    const { status: ended, err } = await cli(...args)
    expect([ended, err]).toEqual([status, expect.stringMatching(says)])
    expect(err).not.toMatch(stackTrace)
    expect(asked).toEqual([])
  })
})

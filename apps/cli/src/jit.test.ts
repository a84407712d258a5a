import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { cli } from './testing/cli.ts'

const hello = fileURLToPath(new URL('../../../guests/hello/hello.elf', import.meta.url))
const folder = await mkdtemp(join(tmpdir(), 'nonroot-jit-'))
afterAll(() => rm(folder, { recursive: true }))

describe('nonroot jit dump', () => {
  it('shows guest code, IR and WebAssembly', async () => {
    const { status, out } = await cli('jit', 'dump', '--bytes', 'ff c9 75 fc c3')
    expect(status).toBe(0)
    expect(out).toMatch(/^guest code:\n +0: ffc9 +dec ecx\n +2: 75fc +jne 0\n +4: c3 +ret\n/)
    expect(out).toContain('IR of the region (2 blocks):')
    expect(out).toMatch(/loop L\d+ \{\n/)
    expect(out).toMatch(/WebAssembly \(a module of \d+ bytes\):\n +\(module/)
    expect(out).toContain('(return_call ')
    expect(out).not.toContain('handler of')
  })

  it('takes a file, an offset, a mode, and shows handlers', async () => {
    const file = join(folder, 'code.bin')
    await writeFile(file, Uint8Array.of(0x90, 0x90, 0x40, 0xf4))
    const { out } = await cli('jit', 'dump', file, '--at', '0x2', '--mode', '32', '--handlers')
    expect(out).toMatch(/^guest code:\n +2: 40 +inc eax\n/)
    expect(out).toContain('handler of inc eax:\n')
  })

  it('takes an ELF and an address, and shows addresses', async () => {
    const { out } = await cli('jit', 'dump', hello, '--at', '0x100020', '--mode', '32')
    expect(out).toMatch(/^guest code:\n( +1000[0-9a-f]{2}: [0-9a-f]+ +\S.*\n)+/)
    expect(out).toMatch(/^ +100020: /m)
    const nothing = await cli('jit', 'dump', hello, '--at', '0x90000000', '--mode', '32')
    expect(nothing.err).toMatch(/nothing of .*hello.elf is loaded at 0x90000000\n +it has 0x100000\.\./)
    const nobody = await cli('jit', 'dump', hello, '--at', 'nobody')
    expect(nobody.err).toContain('has no symbol nobody')
  })

  it('says where the interpreter does it, and shows how', async () => {
    const { out } = await cli('jit', 'dump', '--bytes', 'f4')
    expect(out).toContain('no region: the interpreter runs this code\n\nhandler of hlt:\n')
  })

  it('prints JSON', async () => {
    const { out } = await cli('jit', 'dump', '--bytes', '4801d8', '--json')
    const dump = JSON.parse(out) as { guest: unknown; region: { wasm: string; blocks: number } }
    expect(dump.guest).toEqual([{ address: 0, bytes: '4801d8', text: 'add rax,rbx' }])
    expect(dump.region).toMatchObject({ blocks: 1, wasm: expect.stringMatching(/^0061736d/) as string })
  })

  it.each([
    [[], 'give FILE or --bytes'],
    [['x.bin', '--bytes', '90'], 'give FILE or --bytes'],
    [['--bytes', '9'], 'as in "48 01 d8"'],
    [['--bytes', '90', '--at', 'x'], 'as in 0x1200'],
    [['--bytes', '90', '--at', '1'], 'inside it'],
    [['--bytes', '90', '--mode', '8'], 'valid: 64, 32, 16'],
  ])('refuses %j', async (argv, remedy) => {
    const { status, err } = await cli('jit', 'dump', ...argv)
    expect(status).toBe(2)
    expect(err).toContain(remedy)
  })

  it('tells a file that is not there', async () => {
    expect((await cli('jit', 'dump', join(folder, 'none'))).status).toBe(3)
  })
})

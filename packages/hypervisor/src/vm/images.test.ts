import type { BootImage, HostBackends } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import type { Stack } from '../composition/stack.ts'
import { imageFor, openImage } from './images.ts'

/** A host with these files; those that can be opened say when they are closed. */
function bench(files: Record<string, string>, opens = true) {
  const log: string[] = []
  const content = (path: string) => {
    if (files[path] === undefined) throw Object.assign(new Error('no'), { code: 'ENOENT' })
    return new TextEncoder().encode(files[path])
  }
  const backend = {
    readFile: async (path: string) => content(path),
    ...(opens && {
      openFile: async (path: string) => {
        const bytes = content(path)
        return {
          length: bytes.length,
          read: async (at: number, length: number) => bytes.subarray(at, at + length),
          async readInto(at: number, views: readonly Uint8Array[]) {
            if (at >= bytes.length) throw new Error('beyond the end')
            for (const view of views) view.set(bytes.subarray(at, at + view.length))
          },
          close: () => log.push(`close ${path}`),
        }
      },
    }),
  }
  const source = {
    backends: { open: async () => backend } as unknown as HostBackends,
    resolvePath: (folder: string, path: string) => `${folder}/${path}`,
  }
  return { log, source }
}
const stackOf = (image: BootImage<string>) => ({ file: 'stack.yaml', boot: { image, folder: 'F' } }) as unknown as Stack
const IMAGE = { kernel: 'k', initrd: 'i', cmdline: 'quiet', modules: [{ content: 'm', cmdline: 'one' }] } as BootImage<string>
const FILES = { 'F/k': 'kernel', 'F/i': 'initrd', 'F/m': 'module' }

describe('the image of a VM', () => {
  it('has what the stack names, opened, and closes it', async () => {
    const { log, source } = bench(FILES)
    const { image, close } = await imageFor(stackOf(IMAGE), undefined, source)
    const text = async (part: unknown) => new TextDecoder().decode(await (part as { read(at: number, length: number): Promise<Uint8Array> }).read(0, 9))
    expect([await text(image.kernel), await text(image.initrd), await text(image.modules![0]!.content)]).toEqual(['kernel', 'initrd', 'module'])
    expect([image.cmdline, image.modules![0]!.cmdline, image.firmware, 'firmware' in image]).toEqual(['quiet', 'one', undefined, false])
    expect(log).toEqual([])
    close()
    close()
    expect(log.toSorted()).toEqual(['close F/i', 'close F/k', 'close F/m'])
  })

  it('is read where the host opens no files', async () => {
    const { source } = bench(FILES, false)
    const { image } = await imageFor(stackOf({ kernel: 'k' }), undefined, source)
    expect(image).toEqual({ kernel: new TextEncoder().encode('kernel') })
  })

  it('is what was given, and nothing is opened', async () => {
    const { source } = bench({})
    const given = { kernel: Uint8Array.of(1) }
    const { image, settled, close } = await imageFor(stackOf(IMAGE), given, source)
    await settled()
    close()
    expect(image).toBe(given)
  })

  it('is what a function makes of it, whose failure closes the files', async () => {
    const { log, source } = bench(FILES)
    const { image, close } = await imageFor(stackOf(IMAGE), async (configured) => ({ ...configured, cmdline: 'other' }), source)
    expect(image.cmdline).toBe('other')
    close()
    expect(log.splice(0).length).toBe(3)
    await expect(imageFor(stackOf(IMAGE), () => Promise.reject(new Error('mine')), source)).rejects.toThrow('mine')
    expect(log.length).toBe(3)
  })

  it.each([
    { missing: 'F/k', what: 'kernel' },
    { missing: 'F/i', what: 'initrd' },
    { missing: 'F/m', what: 'module 0' },
  ])('names $what where it is not there, and closes the others', async ({ missing, what }) => {
    const { log, source } = bench({ ...FILES, [missing]: undefined as never })
    await expect(imageFor(stackOf(IMAGE), undefined, source)).rejects.toMatchObject({
      code: 'host.file',
      message: `cannot read the ${what} ${missing}: there is no such file`,
      value: missing,
    })
    expect(log.length).toBeLessThan(3)
    expect(log).not.toContain(`close ${missing}`)
  })

  it('has to be named', async () => {
    await expect(imageFor({ file: 'stack.yaml' } as unknown as Stack, undefined, bench({}).source)).rejects.toMatchObject({ code: 'stack.missing', location: { file: 'stack.yaml' } })
  })

  it('settles when all that was asked for is read, and fails with what failed, once', async () => {
    const { source } = bench(FILES)
    const { image, settled } = await openImage({ kernel: 'k' } as BootImage<string>, { ...source, folder: 'F' })
    const file = image.kernel as unknown as { readInto(at: number, views: Uint8Array[], done: () => void): void }
    const into = new Uint8Array(3)
    const done: string[] = []
    file.readInto(3, [into], () => done.push('first'))
    expect(done).toEqual([])
    await settled()
    expect([done, new TextDecoder().decode(into)]).toEqual([['first'], 'nel'])
    file.readInto(100, [into], () => done.push('second'))
    await expect(settled()).rejects.toThrow('beyond the end')
    await settled()
    expect(done).toEqual(['first'])
  })
})

/** Selects a kernel, and the modules that a virtual machine needs, from the files of a package or a whole system. */
import { type Bytes, decodeText } from './bytes.ts'
import { compressionOf, decompress, type Decompressors } from './compression.ts'
import { ImageError, invalidImage } from './errors.ts'
import type { OnProgress } from './host.ts'
import { DEFAULT_MODULES, type ModuleFile } from './initramfs.ts'
import { type ModuleInfo, moduleName, readModuleInfo } from './module-info.ts'
import { parseModulesBuiltin, resolveModules } from './modules.ts'
import type { TarEntry, TarFile } from './tar.ts'

export interface Kernel {
  readonly image: Bytes
  readonly config: Bytes
  readonly release: string
  readonly modules: ModuleFile[]
  readonly builtin: string
}

const MODULES = /^(?:usr\/)?lib\/modules\/([^/]+)\/(kernel\/.+\.ko(?:\.xz|\.gz|\.zst)?|modules\.builtin)$/

/** The files that `wanted` accepts, of a package or a root, as often as it is called. */
export type FilesOf = (wanted: (entry: TarEntry) => boolean) => AsyncIterable<TarFile>

/** Two passes over the files: what each module needs, then the ones that are wanted. (All at once would be 300 MB.) */
export async function unpackKernel(
  files: FilesOf,
  decompressors: Decompressors | undefined,
  name: string,
  wanted: readonly string[],
  progress: OnProgress,
): Promise<Kernel> {
  progress({ step: 'unpack', what: name, done: 0, total: 2 })
  const infos = new Map<string, ModuleInfo>()
  // Compressed modules are read when the package's own stream has ended (decompressChunks).
  const compressed: { path: string; data: Bytes }[] = []
  let image: Bytes | undefined
  let config: Bytes = new Uint8Array(0)
  let release = ''
  let builtin = ''
  const isRead = ({ path }: { path: string }) => MODULES.test(path) || /^boot\/(vmlinuz|config)-/.test(path)
  for await (const { path, data, kind } of files(isRead)) {
    if (kind !== 'file') continue
    if (path.startsWith('boot/vmlinuz-')) {
      image = data.slice()
      release = path.slice('boot/vmlinuz-'.length)
    } else if (path.startsWith('boot/config-')) config = data.slice()
    else if (MODULES.exec(path)?.[2] === 'modules.builtin') builtin = decodeText(data)
    else if (compressionOf(data) !== 'none') compressed.push({ path, data: data.slice() })
    else infos.set(moduleName(path), readModuleInfo(data, path))
  }
  for (const { path, data } of compressed) {
    infos.set(moduleName(path), readModuleInfo(await decompress(data, decompressors, path), path))
  }
  if (!image) throw invalidImage(name, 'boot/vmlinuz', 'not there', 'there is no kernel in it: give --kernel FILE')

  const builtinNames = parseModulesBuiltin(builtin)
  const { missing } = resolveModules(wanted, infos, builtinNames)
  if (missing.length > 0)
    throw new ImageError(
      'moduleNotFound',
      `${name} has no module ${missing.join(', ')}`,
      'check the spelling, or take another flavour',
    )
  const { order } = resolveModules([...DEFAULT_MODULES, ...wanted], infos, builtinNames)
  const chosen = new Set(order)
  progress({ step: 'unpack', what: name, done: 1, total: 2 })
  const isChosen = ({ path }: { path: string }) =>
    /\.ko(\.|$)/.test(path) && MODULES.test(path) && chosen.has(moduleName(path))
  const found: { path: string; data: Bytes }[] = []
  for await (const file of files(isChosen)) if (isChosen(file)) found.push({ path: file.path, data: file.data.slice() })
  const modules: ModuleFile[] = []
  for (const { path, data } of found) {
    const under = MODULES.exec(path)![2]!.replace(/\.(xz|gz|zst)$/, '')
    modules.push({
      ...infos.get(moduleName(path))!,
      path: under,
      data: await decompress(data, decompressors, path),
    })
  }
  return { image, config, release, modules, builtin }
}

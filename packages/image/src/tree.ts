/** A file tree in memory with Debian's merged /usr layout, to be written as an archive or a disk. Later files replace earlier ones. */
import { type Bytes, byCodeUnits, encodeText } from './bytes.ts'
import type { TarFile } from './tar.ts'

export type TreeNode =
  | { readonly kind: 'directory'; readonly mode: number }
  | { readonly kind: 'file'; readonly mode: number; readonly data: Bytes }
  | { readonly kind: 'symbolicLink'; readonly mode: 0o777; readonly target: string }
  | {
      readonly kind: 'characterDevice' | 'blockDevice'
      readonly mode: number
      readonly major: number
      readonly minor: number
    }

/** Top-level folders that are links into /usr. Packages of Debian 12 still name files by both spellings. (UsrMerge) */
const MERGED = ['bin', 'sbin', 'lib', 'lib64']

const placed = (path: string): string => {
  const clean = path
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/')
  return MERGED.some((folder) => clean === folder || clean.startsWith(`${folder}/`)) ? `usr/${clean}` : clean
}

export class Tree {
  private readonly nodes = new Map<string, TreeNode>()

  constructor() {
    for (const folder of MERGED) {
      this.nodes.set(folder, { kind: 'symbolicLink', mode: 0o777, target: `usr/${folder}` })
      this.directory(`usr/${folder}`)
    }
  }

  directory(path: string, mode = 0o755): this {
    return this.put(path, { kind: 'directory', mode })
  }

  file(path: string, data: Bytes | string, mode = 0o644): this {
    return this.put(path, { kind: 'file', mode, data: typeof data === 'string' ? encodeText(data) : data })
  }

  link(path: string, target: string): this {
    return this.put(path, { kind: 'symbolicLink', mode: 0o777, target })
  }

  characterDevice(path: string, major: number, minor: number, mode = 0o600): this {
    return this.put(path, { kind: 'characterDevice', mode, major, minor })
  }

  /** An unpacked package file. A hard link becomes a second name of the same data. */
  add(file: TarFile): void {
    // base-files may bring the links of MERGED themselves: they are there.
    if (file.path === '' || (file.kind === 'symbolicLink' && MERGED.includes(file.path))) return
    if (file.kind === 'directory') {
      const there = this.get(file.path)
      // A link to a folder (as /lib is) stays: what is put below goes through it.
      if (there?.kind !== 'directory' && there?.kind !== 'symbolicLink') this.directory(file.path, file.mode)
    } else if (file.kind === 'file') this.file(file.path, file.data, file.mode)
    else if (file.kind === 'symbolicLink') this.link(file.path, file.linkTarget)
    else if (file.kind === 'hardLink') {
      const target = this.get(file.linkTarget)
      if (target) this.put(file.path, target)
    }
  }

  get(path: string): TreeNode | undefined {
    return this.nodes.get(placed(path))
  }

  /** Parents before children, siblings by code unit. */
  entries(): [string, TreeNode][] {
    return [...this.nodes].sort(([a], [b]) => byCodeUnits(a, b))
  }

  private put(path: string, node: TreeNode): this {
    const at = placed(path)
    for (let slash = at.indexOf('/'); slash > 0; slash = at.indexOf('/', slash + 1)) {
      const parent = at.slice(0, slash)
      if (!this.nodes.has(parent)) this.nodes.set(parent, { kind: 'directory', mode: 0o755 })
    }
    this.nodes.set(at, node)
    return this
  }
}

/**
 * The store: a tree of small values that domains agree on their devices by. Nodes have an owner and permissions, watches fire at changes, transactions
 * are a copy of the tree that is taken back where something else changed meanwhile. (Xen, "docs/misc/xenstore.txt")
 */

/** Errors by the names that go over the wire. */
export type StoreError = 'ENOENT' | 'EACCES' | 'EINVAL' | 'EAGAIN' | 'EEXIST' | 'ENOSPC' | 'EQUOTA' | 'E2BIG' | 'ENOSYS'

/** What one unprivileged domain may have. */
export const QUOTA = {
  nodes: 1000,
  watches: 128,
  transactions: 10,
  valueBytes: 2048,
  permissions: 5,
  path: 3072,
  token: 256,
} as const

export interface Permission {
  readonly domain: number
  readonly read: boolean
  readonly write: boolean
}

export interface StoreNode {
  readonly value: string
  readonly permissions: readonly Permission[]
  readonly children: ReadonlyMap<string, StoreNode>
}

interface Watch {
  readonly path: string
  readonly token: string
  /** The path as it was asked for, relative or not. */
  readonly asked: string
  readonly connection: StoreConnection
}

interface Transaction {
  readonly base: StoreNode
  root: StoreNode
  readonly changed: Set<string>
}

const PATH = /^(?:\/|@(?:introduce|release)Domain|(?:\/[\w\-@]+)+)$/
export const isPath = (path: string): boolean => path.length <= QUOTA.path && PATH.test(path)

const node = (permissions: readonly Permission[], value = ''): StoreNode => ({
  value,
  permissions,
  children: new Map(),
})
const CONTROL = 0

export class Store {
  #root: StoreNode = node([{ domain: CONTROL, read: false, write: false }])
  readonly #watches: Watch[] = []
  /** Nodes by owner. */
  #counts: ReadonlyMap<number, number> = new Map()

  connect(domain: number, onWatch: (path: string, token: string) => void): StoreConnection {
    return new StoreConnection(this, domain, onWatch)
  }

  get root(): StoreNode {
    return this.#root
  }

  /** Replace the tree, and tell who watches the paths. */
  commit(root: StoreNode, changed: Iterable<string>): void {
    this.#root = root
    this.#counts = countOwners(root)
    for (const path of changed) this.fire(path)
  }
  nodesOf(domain: number): number {
    return this.#counts.get(domain) ?? 0
  }

  fire(path: string): void {
    // A watch that fires may change watches.
    for (const watch of this.#watches.slice()) {
      const isBelow = watch.path === path || watch.path === '/' || path.startsWith(`${watch.path}/`)
      // A parent was removed: the event names the watched path.
      const isAbove = watch.path.startsWith(`${path}/`)
      if (!isBelow && !isAbove) continue
      if (!watch.connection.mayRead(path)) continue
      const told = isAbove ? watch.asked : watch.asked + path.slice(watch.path === '/' ? 0 : watch.path.length)
      watch.connection.onWatch(told, watch.token)
    }
  }

  addWatch(watch: Watch): void {
    this.#watches.push(watch)
  }
  /** How many were removed. */
  removeWatches(which: (watch: Watch) => boolean): number {
    let removed = 0
    for (let n = this.#watches.length - 1; n >= 0; n--) {
      if (!which(this.#watches[n]!)) continue
      this.#watches.splice(n, 1)
      removed++
    }
    return removed
  }
  isWatched(connection: StoreConnection, path: string, token: string): boolean {
    return this.#watches.some(
      (watch) => watch.connection === connection && watch.path === path && watch.token === token,
    )
  }
  watchesOf(connection: StoreConnection): number {
    return this.#watches.filter((watch) => watch.connection === connection).length
  }
}

/** Nodes by owner. */
function countOwners(at: StoreNode, counts = new Map<number, number>()): ReadonlyMap<number, number> {
  const owner = at.permissions[0]!.domain
  counts.set(owner, (counts.get(owner) ?? 0) + 1)
  for (const child of at.children.values()) countOwners(child, counts)
  return counts
}

const names = (path: string): string[] => (path === '/' ? [] : path.slice(1).split('/'))

function find(root: StoreNode, path: string): StoreNode | undefined {
  let at: StoreNode | undefined = root
  for (const name of names(path)) at = at?.children.get(name)
  return at
}

/** The tree with one node replaced, made (with all above it) or removed. */
function replace(
  at: StoreNode,
  path: readonly string[],
  make: (old: StoreNode | undefined, parent: StoreNode) => StoreNode | undefined,
): StoreNode {
  const [name, ...rest] = path
  if (name === undefined) return make(at, at) ?? at
  const children = new Map(at.children)
  const old = children.get(name)
  const next = rest.length === 0 ? make(old, at) : replace(old ?? make(undefined, at)!, rest, make)
  if (next) children.set(name, next)
  else children.delete(name)
  return { ...at, children }
}

/** One domain's way in: every call is judged by its permissions and its quota. */
export class StoreConnection {
  readonly store: Store
  readonly domain: number
  readonly onWatch: (path: string, token: string) => void
  readonly #transactions = new Map<number, Transaction>()
  #nextTransaction = 1

  constructor(store: Store, domain: number, onWatch: (path: string, token: string) => void) {
    this.store = store
    this.domain = domain
    this.onWatch = onWatch
  }

  get isPrivileged(): boolean {
    return this.domain === CONTROL
  }
  get home(): string {
    return `/local/domain/${this.domain}`
  }
  /** Names that begin with no slash are below the domain's own folder. Undefined: it is no path. */
  absolute(path: string): string | undefined {
    const full = path.startsWith('/') || path.startsWith('@') ? path : `${this.home}/${path}`
    return isPath(full) ? full : undefined
  }

  #allows(at: StoreNode, what: 'read' | 'write'): boolean {
    if (this.isPrivileged) return true
    const [owner, ...others] = at.permissions
    if (owner!.domain === this.domain) return true
    return (others.find(({ domain }) => domain === this.domain) ?? owner!)[what]
  }
  /** Of a node that is gone, what was above it counts. */
  mayRead(path: string): boolean {
    if (this.isPrivileged) return true
    if (path.startsWith('@')) return false
    let at = path
    for (;;) {
      const found = find(this.store.root, at)
      if (found) return this.#allows(found, 'read')
      at = at.slice(0, at.lastIndexOf('/')) || '/'
    }
  }

  #root(transaction: number): StoreNode | StoreError {
    if (transaction === 0) return this.store.root
    return this.#transactions.get(transaction)?.root ?? 'ENOENT'
  }

  #node(path: string, transaction: number, what: 'read' | 'write'): StoreNode | StoreError {
    const root = this.#root(transaction)
    if (typeof root === 'string') return root
    const found = find(root, path)
    if (!found) return this.#mayReachAbove(root, path) ? 'ENOENT' : 'EACCES'
    return this.#allows(found, what) ? found : 'EACCES'
  }
  /** That a node does not exist is for those to know who may read what is above it. */
  #mayReachAbove(root: StoreNode, path: string): boolean {
    let at = root
    for (const name of names(path)) {
      const next = at.children.get(name)
      if (!next) break
      at = next
    }
    return this.#allows(at, 'read')
  }

  #apply(transaction: number, path: string, root: StoreNode): void {
    const open = this.#transactions.get(transaction)
    if (!open) return this.store.commit(root, [path])
    open.root = root
    open.changed.add(path)
  }

  read(path: string, transaction = 0): { value: string } | StoreError {
    return this.#node(path, transaction, 'read')
  }
  list(path: string, transaction = 0): readonly string[] | StoreError {
    const found = this.#node(path, transaction, 'read')
    return typeof found === 'string' ? found : [...found.children.keys()]
  }
  permissions(path: string, transaction = 0): readonly Permission[] | StoreError {
    const found = this.#node(path, transaction, 'read')
    return typeof found === 'string' ? found : found.permissions
  }

  /** `value` undefined: make it where it is not there, and leave it alone where it is. */
  write(path: string, value: string | undefined, transaction = 0): StoreError | undefined {
    if (path.startsWith('@')) return 'EINVAL'
    const root = this.#root(transaction)
    if (typeof root === 'string') return root
    if (!this.isPrivileged && value !== undefined && value.length > QUOTA.valueBytes) return 'ENOSPC'
    const existing = find(root, path)
    if (existing && !this.#allows(existing, 'write')) return 'EACCES'
    if (existing && value === undefined) return undefined
    let missing = 0
    if (!existing) {
      let at = root
      const parts = names(path)
      for (const [depth, name] of parts.entries()) {
        const next = at.children.get(name)
        if (!next) {
          missing = parts.length - depth
          break
        }
        at = next
      }
      if (!this.#allows(at, 'write')) return 'EACCES'
      if (!this.isPrivileged && this.#owned(transaction) + missing > QUOTA.nodes) return 'EQUOTA'
    }
    const depth = names(path)
    const made = replace(root, depth, (old, parent) =>
      old ? { ...old, value: value ?? old.value } : { ...node(this.#inherited(parent)), value: '' },
    )
    const written = existing || value === undefined ? made : replace(made, depth, (old) => ({ ...old!, value }))
    this.#apply(transaction, path, written)
    return undefined
  }
  /** Nodes that are this domain's, with those that a transaction has made. */
  #owned(transaction: number): number {
    const open = this.#transactions.get(transaction)
    return open ? (countOwners(open.root).get(this.domain) ?? 0) : this.store.nodesOf(this.domain)
  }
  /** A new node belongs to its creator, and inherits the other permissions of its parent. */
  #inherited({ permissions: [owner, ...others] }: StoreNode): Permission[] {
    return [this.isPrivileged ? owner! : { ...owner!, domain: this.domain }, ...others]
  }

  remove(path: string, transaction = 0): StoreError | undefined {
    const root = this.#root(transaction)
    if (typeof root === 'string') return root
    if (path === '/') return 'EINVAL'
    const existing = find(root, path)
    if (!existing) {
      const above = find(root, path.slice(0, path.lastIndexOf('/')) || '/')
      return above ? undefined : 'ENOENT'
    }
    if (!this.#allows(existing, 'write')) return 'EACCES'
    this.#apply(
      transaction,
      path,
      replace(root, names(path), () => undefined),
    )
    return undefined
  }

  setPermissions(path: string, permissions: readonly Permission[], transaction = 0): StoreError | undefined {
    const found = this.#node(path, transaction, 'write')
    if (typeof found === 'string') return found
    const owner = found.permissions[0]!.domain
    if (permissions.length === 0) return 'EINVAL'
    if (!this.isPrivileged && permissions.length > QUOTA.permissions) return 'ENOSPC'
    // Only the owner decides who may, and only domain 0 who the owner is.
    if (!this.isPrivileged && (owner !== this.domain || permissions[0]!.domain !== owner)) return 'EACCES'
    const root = this.#root(transaction) as StoreNode
    this.#apply(
      transaction,
      path,
      replace(root, names(path), (old) => ({ ...old!, permissions })),
    )
    return undefined
  }

  /** Why `watch` would refuse. */
  checkWatch(asked: string, token: string): StoreError | undefined {
    const path = this.absolute(asked)
    if (path === undefined) return 'EINVAL'
    if (path.startsWith('@') && !this.isPrivileged) return 'EACCES'
    if (!this.isPrivileged && token.length > QUOTA.token) return 'E2BIG'
    if (!this.isPrivileged && this.store.watchesOf(this) >= QUOTA.watches) return 'E2BIG'
    return this.store.isWatched(this, path, token) ? 'EEXIST' : undefined
  }
  watch(asked: string, token: string): StoreError | undefined {
    const failed = this.checkWatch(asked, token)
    if (failed) return failed
    this.store.addWatch({ path: this.absolute(asked)!, token, asked, connection: this })
    // A new watch fires once for the present content.
    this.onWatch(asked, token)
    return undefined
  }
  unwatch(asked: string, token: string): StoreError | undefined {
    const path = this.absolute(asked)
    const removed = this.store.removeWatches(
      (other) => other.connection === this && other.path === path && other.token === token,
    )
    return removed ? undefined : 'ENOENT'
  }
  /** All of this domain's watches and transactions. */
  reset(): void {
    this.store.removeWatches((watch) => watch.connection === this)
    this.#transactions.clear()
  }

  begin(): number | StoreError {
    if (!this.isPrivileged && this.#transactions.size >= QUOTA.transactions) return 'ENOSPC'
    const id = this.#nextTransaction++
    this.#transactions.set(id, { base: this.store.root, root: this.store.root, changed: new Set() })
    return id
  }
  end(id: number, commit: boolean): StoreError | undefined {
    const open = this.#transactions.get(id)
    if (!open) return 'ENOENT'
    this.#transactions.delete(id)
    if (!commit || open.changed.size === 0) return undefined
    if (open.base !== this.store.root) return 'EAGAIN'
    this.store.commit(open.root, open.changed)
    return undefined
  }
}

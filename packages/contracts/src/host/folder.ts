/**
 * A folder of the host that a guest shares. Clients hold nodes, not paths: a node always names the same object, and no path or link leads out of the
 * folder.
 */

export type FolderEntryKind = 'file' | 'folder' | 'link' | 'other'

export interface FolderAttributes {
  readonly kind: FolderEntryKind
  /** Constant while the object exists, and unique in the folder. */
  readonly inode: bigint
  /** Type and permission bits, as stat(2). */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly links: number
  readonly size: number
  readonly blockSize: number
  /** Of 512 bytes. */
  readonly blocks: number
  /** Since 1970. */
  readonly accessedNs: bigint
  readonly modifiedNs: bigint
  readonly changedNs: bigint
}

export interface FolderChanges {
  /** Permission bits. Set-user-ID and set-group-ID are never given to a file of the host. */
  readonly mode?: number
  readonly size?: number
  /** `now`: the host's time. */
  readonly accessedNs?: bigint | 'now'
  readonly modifiedNs?: bigint | 'now'
}

export interface FolderOpenFlags {
  readonly read: boolean
  readonly write: boolean
  readonly truncate?: boolean
  /** Creating: fail if it exists. */
  readonly exclusive?: boolean
}

/** An open file. */
export interface FolderFile {
  /** Bytes read; 0 at the end. */
  read(offset: number, into: Uint8Array): Promise<number>
  write(offset: number, from: Uint8Array): Promise<number>
  sync(): Promise<void>
  close(): Promise<void>
}

/**
 * A file, folder or link inside the shared folder. Every name is one component: a name that is empty, `.`, `..`, or has a `/` or NUL is refused with
 * EINVAL. Links are never followed. Methods reject with an error whose `code` is a POSIX name (`ENOENT`).
 */
export interface FolderNode {
  readonly kind: FolderEntryKind
  attributes(): Promise<FolderAttributes>
  change(changes: FolderChanges): Promise<void>
  /** Of a folder. */
  find(name: string): Promise<FolderNode>
  list(): Promise<readonly { readonly name: string; readonly kind: FolderEntryKind }[]>
  /** `file`, `folder`: the type to create. */
  createFile(name: string, flags: FolderOpenFlags, mode: number): Promise<{ node: FolderNode; file: FolderFile }>
  createFolder(name: string, mode: number): Promise<FolderNode>
  createLink(name: string, target: string): Promise<FolderNode>
  /** Creates a second name for a file. */
  addName(name: string, of: FolderNode): Promise<void>
  rename(name: string, into: FolderNode, newName: string): Promise<void>
  remove(name: string, what: 'file' | 'folder'): Promise<void>
  /** Of a file. */
  open(flags: FolderOpenFlags): Promise<FolderFile>
  /** The target of a link. */
  target(): Promise<string>
  /** Releases one reference; the last one frees the node. */
  release(): Promise<void>
  /** Adds a reference. */
  retain(): FolderNode
}

export interface FolderSpace {
  readonly blockSize: number
  readonly blocks: number
  readonly freeBlocks: number
  readonly availableBlocks: number
  readonly files: number
  readonly freeFiles: number
}

export interface FolderBackend {
  readonly readOnly: boolean
  /** The shared folder itself. The back end holds it. */
  readonly root: FolderNode
  space(): Promise<FolderSpace>
  close(): Promise<void>
}

export interface FolderRequest {
  readonly path: string
  readonly readOnly?: boolean
}

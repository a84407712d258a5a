/** Messages of the store's wire protocol: one function a type. (Xen, "public/io/xs_wire.h"; "docs/misc/xenstore.txt") */

import type { Permission, StoreConnection, StoreError } from './store.ts'

export const MESSAGE = {
  control: 0,
  directory: 1,
  read: 2,
  getPermissions: 3,
  watch: 4,
  unwatch: 5,
  transactionStart: 6,
  transactionEnd: 7,
  introduce: 8,
  release: 9,
  getDomainPath: 10,
  write: 11,
  mkdir: 12,
  remove: 13,
  setPermissions: 14,
  watchEvent: 15,
  error: 16,
  isIntroduced: 17,
  resume: 18,
  setTarget: 19,
  resetWatches: 21,
  directoryPart: 22,
} as const

export interface Reply {
  readonly type: number
  readonly text: string
  /** Once the answer is on its way. */
  readonly then?: () => void
}

interface Request {
  readonly connection: StoreConnection
  readonly transaction: number
  readonly text: string
  /** What stands before each zero byte. */
  readonly words: readonly string[]
  readonly path: string | undefined
}
type Answer = string | { readonly error: StoreError } | { readonly text: string; readonly then: () => void }

const OK = 'OK\0'
const error = (name: StoreError): Answer => ({ error: name })
const done = (failed: StoreError | undefined): Answer => (failed ? error(failed) : OK)
const denied = (): Answer => error('EACCES')

/** `n0`, `r1`, `w2`, `b3`: what domain 1 may. */
const LETTERS: Readonly<Record<string, Pick<Permission, 'read' | 'write'>>> = {
  n: { read: false, write: false },
  r: { read: true, write: false },
  w: { read: false, write: true },
  b: { read: true, write: true },
}
const letterOf = ({ read, write }: Permission): string => (read ? (write ? 'b' : 'r') : write ? 'w' : 'n')
function permissionOf(word: string): Permission | undefined {
  const rights = LETTERS[word[0] ?? '']
  return rights && /^\d{1,5}$/.test(word.slice(1)) ? { ...rights, domain: Number(word.slice(1)) } : undefined
}

const MOST_TEXT = 4096
const PART = 1024

const ANSWERS: Readonly<Record<number, (request: Request) => Answer>> = {
  [MESSAGE.control]: denied,
  [MESSAGE.introduce]: denied,
  [MESSAGE.release]: denied,
  [MESSAGE.isIntroduced]: denied,
  [MESSAGE.resume]: denied,
  [MESSAGE.setTarget]: denied,
  [MESSAGE.directory]({ connection, transaction, path }) {
    if (path === undefined) return error('EINVAL')
    const found = connection.list(path, transaction)
    if (typeof found === 'string') return error(found)
    const text = found.map((name) => `${name}\0`).join('')
    return text.length > MOST_TEXT ? error('E2BIG') : text
  },
  /** From an offset on, with a word that changes as the list does. */
  [MESSAGE.directoryPart]({ connection, transaction, path, words }) {
    const offset = Number(words[1])
    if (path === undefined || !Number.isInteger(offset) || offset < 0) return error('EINVAL')
    const found = connection.list(path, transaction)
    if (typeof found === 'string') return error(found)
    const text = `${found.map((name) => `${name}\0`).join('')}\0`
    return `${found.length}\0${text.slice(offset, offset + PART)}`
  },
  [MESSAGE.read]({ connection, transaction, path }) {
    if (path === undefined) return error('EINVAL')
    const found = connection.read(path, transaction)
    return typeof found === 'string' ? error(found) : found.value
  },
  [MESSAGE.getPermissions]({ connection, transaction, path }) {
    if (path === undefined) return error('EINVAL')
    const found = connection.permissions(path, transaction)
    return typeof found === 'string'
      ? error(found)
      : found.map((one) => `${letterOf(one as Permission)}${(one as Permission).domain}\0`).join('')
  },
  [MESSAGE.watch]({ connection, words }) {
    const [path, token] = words
    if (path === undefined || token === undefined) return error('EINVAL')
    const absolute = connection.absolute(path)
    if (absolute === undefined) return error('EINVAL')
    // The answer comes before the first event.
    const failed = connection.checkWatch(path, token)
    return failed ? error(failed) : { text: OK, then: () => void connection.watch(path, token) }
  },
  [MESSAGE.unwatch]({ connection, words: [path, token] }) {
    return path === undefined || token === undefined ? error('EINVAL') : done(connection.unwatch(path, token))
  },
  [MESSAGE.transactionStart]({ connection }) {
    const id = connection.begin()
    return typeof id === 'string' ? error(id) : `${id}\0`
  },
  [MESSAGE.transactionEnd]({ connection, transaction, words: [word] }) {
    if (word !== 'T' && word !== 'F') return error('EINVAL')
    return done(connection.end(transaction, word === 'T'))
  },
  [MESSAGE.getDomainPath]({ words: [domain] }) {
    return domain !== undefined && /^\d{1,5}$/.test(domain) ? `/local/domain/${Number(domain)}\0` : error('EINVAL')
  },
  /** The value is all that follows the path's zero byte. */
  [MESSAGE.write]({ connection, transaction, path, text }) {
    const zero = text.indexOf('\0')
    if (path === undefined || zero < 0) return error('EINVAL')
    return done(connection.write(path, text.slice(zero + 1), transaction))
  },
  [MESSAGE.mkdir]({ connection, transaction, path }) {
    return path === undefined ? error('EINVAL') : done(connection.write(path, undefined, transaction))
  },
  [MESSAGE.remove]({ connection, transaction, path }) {
    return path === undefined ? error('EINVAL') : done(connection.remove(path, transaction))
  },
  [MESSAGE.setPermissions]({ connection, transaction, path, words }) {
    const permissions = words.slice(1).map(permissionOf)
    if (path === undefined || permissions.includes(undefined)) return error('EINVAL')
    return done(connection.setPermissions(path, permissions as Permission[], transaction))
  },
  [MESSAGE.resetWatches]({ connection }) {
    connection.reset()
    return OK
  },
}

export function answer(connection: StoreConnection, type: number, transaction: number, text: string): Reply {
  const words = text.split('\0')
  if (words.at(-1) === '') words.pop()
  const path = words[0] === undefined ? undefined : connection.absolute(words[0])
  const result = ANSWERS[type]?.({ connection, transaction, text, words, path }) ?? error('ENOSYS')
  if (typeof result === 'string') return { type, text: result }
  if ('error' in result) return { type: MESSAGE.error, text: `${result.error}\0` }
  return { type, text: result.text, then: result.then }
}

/** Errors of the operating system as a user reads them. */

import util from 'node:util'
import { NonrootError } from '@nonroot/contracts'

/** What was tried, by system call. */
const TRIED: Readonly<Record<string, string>> = {
  open: 'open',
  read: 'read',
  write: 'write to',
  close: 'write to',
  fsync: 'write to',
  fdatasync: 'write to',
  ftruncate: 'write to',
  mkdir: 'make the folder',
  rename: 'rename',
  rm: 'remove',
  rmdir: 'remove',
  unlink: 'remove',
  scandir: 'list',
  stat: 'look at',
  lstat: 'look at',
  chmod: 'change the mode of',
  connect: 'connect to',
  listen: 'listen at',
  spawn: 'start',
}
const REMEDIES: Readonly<Record<string, string>> = {
  ENOSPC: 'make room, or name another place',
  EDQUOT: 'make room, or name another place',
  EACCES: 'name another place, or change who may use it',
  EPERM: 'name another place, or change who may use it',
  EROFS: 'name a place that may be written',
  ENOTDIR: 'a part of its path is a file',
  EISDIR: 'name a file',
  EMFILE: 'raise the limit of open files (ulimit -n)',
}

/** As a `host.file` NonrootError, if the system refused something; undefined: it is an error of another kind. */
export function systemError(error: unknown): NonrootError | undefined {
  if (!(error instanceof Error) || error instanceof NonrootError) return undefined
  const { errno, code, syscall, path } = error as NodeJS.ErrnoException
  if (typeof errno !== 'number' || code === undefined || syscall === undefined) return undefined
  const [call = ''] = syscall.split(' ')
  const remedy = REMEDIES[code]
  const what = path === undefined ? `the system refused "${call}"` : `cannot ${TRIED[call] ?? `use (${call})`} ${path}`
  return new NonrootError({
    code: 'host.file',
    message: `${what}: ${util.getSystemErrorMessage(errno)}`,
    thing: path ?? call,
    value: path,
    ...(remedy === undefined ? {} : { remedy }),
    cause: error,
  })
}

/** Paths of configurations if the host has no rules of its own: POSIX, without accessing a file system. */

export const join = (folder: string, path: string): string =>
  path.startsWith('/') || /^[A-Za-z]:[\\/]/.test(path)
    ? path
    : `${folder.replace(/\/$/, '')}/${path.replace(/^\.\//, '')}`

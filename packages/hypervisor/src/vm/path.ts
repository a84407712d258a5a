/** Paths of configurations where the host brings no rules of its own: POSIX, without asking a file system. */

export const join = (folder: string, path: string): string =>
  path.startsWith('/') || /^[A-Za-z]:[\\/]/.test(path)
    ? path
    : `${folder.replace(/\/$/, '')}/${path.replace(/^\.\//, '')}`

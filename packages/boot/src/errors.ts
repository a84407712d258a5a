/** Errors of placing a guest: the image is invalid, or memory is too small. */
import { NonrootError } from '@nonroot/contracts'

/** `file` is the role of the bytes in the configuration (kernel, initrd, firmware, module 0): the kernel knows its path. */
export const badImage = (file: string, field: string, value: string | number, remedy: string): NonrootError =>
  new NonrootError({
    code: 'boot.image',
    message: `${file}: ${field} is ${value}`,
    thing: `${file}: ${field}`,
    value,
    remedy,
  })

export const noRoom = (what: string, wanted: string, remedy: string): NonrootError =>
  new NonrootError({ code: 'boot.memory', message: `${what} needs ${wanted}`, thing: what, value: wanted, remedy })

export const hex = (value: number): string => `0x${value.toString(16)}`

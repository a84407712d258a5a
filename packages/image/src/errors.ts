/** Errors of making a guest image, with their remedies. Each is a NonrootError. */
import { NonrootError } from '@nonroot/contracts'

/** A file is not what it should be: names file, field, value and what would help. */
export const invalidImage = (file: string, field: string, value: string, remedy: string): NonrootError =>
  new NonrootError({
    code: 'boot.image',
    message: `${file}: ${field} is ${value}`,
    thing: `${file}: ${field}`,
    value,
    remedy,
  })

/** A remedy where no packages can be had. */
export const OWN_FILES = 'give a kernel and an initramfs of your own with --kernel FILE and --initrd FILE'

export type ImageErrorReason =
  | 'noPackageClient'
  | 'noBootstrapTool'
  | 'packageClientFailed'
  | 'packageNotFound'
  | 'downloadFailed'
  | 'hashMismatch'
  | 'packageListInvalid'
  | 'mirrorFailed'
  | 'badSignature'
  | 'expired'
  | 'moduleNotFound'

/** The distribution's packages could not be had. `reason` is what a caller branches on: `noPackageClient` is the cue for the demo guest. */
export class ImageError extends NonrootError {
  readonly reason: ImageErrorReason

  constructor(reason: ImageErrorReason, message: string, remedy: string) {
    super({ code: 'host.backend', message, remedy, thing: 'image' })
    this.reason = reason
  }
}

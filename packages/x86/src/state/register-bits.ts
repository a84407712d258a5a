/** Facts of registers and vectors, for this package's folders. */
export { CR0, CR4, DEFINED, DR6, EFER, FLAG, FLAGS_FIXED, RIGHTS, VECTOR } from '@nonroot/contracts'

/** What both ABIs say of snapshots. */

import { NonrootError } from '@nonroot/contracts'

export const notSaved = (): never => {
  throw new NonrootError({
    code: 'snapshot.mismatch',
    message: 'a Xen guest cannot be saved yet',
    thing: 'stack.abi',
    remedy: 'save guests of ABI kvm or bare',
  })
}

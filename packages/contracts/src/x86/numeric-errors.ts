/** How a processor's x87 errors reach a PC where CR0.NE is clear. (SDM Vol. 1, "MS-DOS Compatibility Sub-mode") */

import { token } from '../base/token.ts'

/** The machine's end of FERR# and IGNNE#. An I/O model offers it; a CPU mode asks for it by `VcpuPorts.capability`. */
export interface NumericErrors {
  /**
   * An instruction has to wait for a pending x87 exception, and FERR# is asserted. `isNew`: no instruction before it had to wait for this exception.
   * True: IGNNE# is asserted, and the instruction executes all the same.
   */
  assertFerr(vcpu: number, isNew: boolean): boolean
}
export const NumericErrors = token<NumericErrors>('NumericErrors')

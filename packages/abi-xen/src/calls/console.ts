/** The hypervisor's own console. (Xen, "public/xen.h", CONSOLEIO_*) */

import type { Handler } from '../call.ts'
import { fail } from '../facts.ts'

const LONGEST = 4096

/** (operation, count, buffer). 0: write, 1: read. */
export const consoleIo: Handler = (call) => {
  const { platform } = call.domain
  const count = Math.min(call.u32(1), LONGEST)
  const bytes = new Uint8Array(count)
  switch (call.u32(0)) {
    case 0:
      if (!call.cpu.copyIn(call.args[2]!, bytes)) return fail('EFAULT')
      platform.write(bytes)
      return 0
    case 1: {
      const got = platform.read(bytes)
      return call.cpu.copyOut(call.args[2]!, bytes.subarray(0, got)) ? got : fail('EFAULT')
    }
    default:
      return fail('ENOSYS')
  }
}

/** Ports. A domain without devices may request I/O privilege; it has no effect. (Xen, "public/physdev.h") */

import type { Handler } from '../call.ts'
import { fail } from '../facts.ts'

const MOST_PORTS = 65536
const SET_IOPL = 6
const SET_IOBITMAP = 7

/** (operation, argument). */
export const physdevOp: Handler = (call) => {
  switch (call.u32(0)) {
    case SET_IOPL: {
      const argument = call.read(call.args[1]!, 4)
      if (!argument) return fail('EFAULT')
      const level = argument.getUint32(0, true)
      if (level > 3) return fail('EINVAL')
      call.pv.setIoPrivilege(level)
      return 0
    }
    case SET_IOBITMAP: {
      const argument = call.read(call.args[1]!, 16)
      if (!argument) return fail('EFAULT')
      const ports = argument.getUint32(8, true)
      if (ports > MOST_PORTS) return fail('EINVAL')
      call.pv.setIoBitmap(argument.getBigUint64(0, true), ports)
      return 0
    }
    default:
      return fail('ENOSYS')
  }
}

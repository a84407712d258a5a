/** The disks of a machine, as its stack names them. */

import type { Stack } from '@nonroot/hypervisor'
import type { DiskInfo } from './protocol.ts'

/** By the option that every disk device has. */
export const diskInfo = ({ devices }: Stack): DiskInfo[] =>
  devices.flatMap(({ name, definition, options }) => {
    const { image, readOnly = false } = options as { image?: unknown; readOnly?: boolean }
    return typeof image === 'string' ? [{ device: name, kind: definition.kind, image, readOnly }] : []
  })

/** The devices of a domain whose other half is in domain 0, and what such a device gets from the I/O model. */

import { NonrootError, token } from '@nonroot/contracts'
import type { GrantAccess, Log } from '@nonroot/contracts'
import { SplitDevice, type Nodes, type SplitDriver, type SplitParts } from './split-device.ts'

/** Offered to each device by Xen's I/O models. */
export interface XenBackends {
  /**
   * Adds a device before the guest runs. `handles` gives the numbers that it may have, in order of preference: the first that is free is taken. `make` gets
   * it, and a function that tells the guest of values that changed.
   */
  attach<T extends SplitDriver>(
    type: SplitDriver['type'],
    handles: Iterable<number>,
    make: (handle: number, update: (nodes: Nodes) => void) => T,
  ): T
}
export const XenBackends = token<XenBackends>('XenBackends')

export class Backends {
  readonly #parts: Omit<SplitParts, 'grants'>
  readonly #devices: SplitDevice[] = []
  readonly #taken = new Set<string>()
  #grants: GrantAccess | undefined

  constructor(parts: Omit<SplitParts, 'grants'>) {
    this.#parts = parts
  }

  connectGrants(grants: GrantAccess): void {
    this.#grants = grants
  }

  for(log: Log): XenBackends {
    return {
      attach: (type, handles, make) => {
        const handle = this.#take(type, handles)
        let device: SplitDevice | undefined
        const driver = make(handle, (nodes) => device?.update(nodes))
        device = new SplitDevice(driver, { ...this.#parts, grants: () => this.#grants! }, log)
        this.#devices.push(device)
        return driver
      },
    }
  }

  #take(type: SplitDriver['type'], handles: Iterable<number>): number {
    for (const handle of handles) {
      const name = `${type} ${handle}`
      if (this.#taken.has(name)) continue
      this.#taken.add(name)
      return handle
    }
    throw new NonrootError({
      code: 'device.create',
      message: 'another device has the number already, or there are too many',
      thing: type,
      value: [...handles].join(', '),
      remedy: 'leave the number out, or name one that is free',
    })
  }

  begin(): void {
    for (const device of this.#devices) device.begin()
  }
  end(): void {
    for (const device of this.#devices) device.end()
  }
}

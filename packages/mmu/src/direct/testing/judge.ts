/** An independent judge of the counts of frames: it makes them again from roots, pins and tables as they stand in memory. Not part of the package. */

import { FRAME_USE } from '@nonroot/contracts'
import type { TableCalls } from '@nonroot/contracts'
import type { FrameTable } from '../frame-table.ts'

const [P, RW, US] = [1, 2, 4]

export interface Judged {
  readonly frames: FrameTable
  readonly tables: Pick<TableCalls, 'root'>
  readonly words: Int32Array
  readonly vcpuCount: number
  /** Frames that are held from outside, and those that vCPUs have as descriptor tables; once for each time. */
  readonly held: readonly number[]
  /** Held to be read only. */
  readonly read?: readonly number[]
  readonly descriptors: readonly number[]
  /** Frames of which one is the domain's. */
  readonly some: Readonly<Uint32Array>
}

/** Empty: nothing is wrong. */
export function countingFaults({
  frames,
  tables,
  words,
  vcpuCount,
  held,
  read = [],
  descriptors,
  some,
}: Judged): string[] {
  const domain = frames.owner[some.find((frame) => frames.owner[frame] !== 0)!]!
  const references = new Map<number, number>()
  const uses = new Map<number, Map<number, number>>()
  const refer = (frame: number): void => void references.set(frame, (references.get(frame) ?? 0) + 1)
  const using = (frame: number, use: number): void => {
    refer(frame)
    const own = uses.get(frame) ?? new Map<number, number>()
    own.set(use, (own.get(use) ?? 0) + 1)
    uses.set(frame, own)
  }
  const owned = Array.from({ length: frames.length }, (_, frame) => frame).filter(
    (frame) => frames.owner[frame] === domain,
  )
  const isTable = (frame: number): boolean =>
    frames.uses[frame]! > 0 && frames.use[frame]! >= 1 && frames.use[frame]! <= 4
  const found: string[] = []
  for (const frame of owned) {
    if (frames.flags[frame]! & 2) refer(frame)
    if (frames.flags[frame]! & 1) using(frame, frames.use[frame]!)
  }
  for (const frame of held) using(frame, FRAME_USE.writable)
  for (const frame of read) refer(frame)
  for (const frame of descriptors) using(frame, FRAME_USE.descriptors)
  for (let vcpu = 0; vcpu < vcpuCount; vcpu++) {
    for (const which of ['kernel', 'user'] as const) if (tables.root(vcpu, which)) using(tables.root(vcpu, which), 4)
  }
  // What the hypervisor has in roots: its own tables, the same in each, and the map where a kernel runs.
  const own = new Set<string>()
  for (const table of owned.filter(isTable)) {
    const level = frames.use[table]!
    if (level === 4) {
      const slot = (index: number): number => words[table * 1024 + index * 2]!
      own.add(slot(260).toString(16))
      for (let index = 257; index < 272; index++)
        if (index !== 260 && slot(index) !== 0)
          found.push(`slot ${index} of root ${table} is ${slot(index).toString(16)}`)
      const isRoot = (which: 'kernel' | 'user'): boolean =>
        Array.from({ length: vcpuCount }, (_, vcpu) => tables.root(vcpu, which)).includes(table)
      if (isRoot('kernel') && !isRoot('user') && !(slot(256) & P)) found.push(`root ${table} of a kernel has no map`)
      if (isRoot('user') && !isRoot('kernel') && slot(256) !== 0) found.push(`root ${table} of users has the map`)
    }
    for (let index = 0; index < 512; index++) {
      if (level === 4 && index >= 256 && index < 272) continue
      const low = words[table * 1024 + index * 2]!
      const high = words[table * 1024 + index * 2 + 1]!
      if (!(low & P)) continue
      const where = `entry ${index} of table ${table} (level ${level})`
      const target = (low >>> 12) + (high & 0xfffff) * 0x100000
      if (frames.owner[target] !== domain) found.push(`${where} names frame ${target}, which is not the domain's`)
      if (low & (level === 1 ? 0x98 : 0x198)) found.push(`${where} has flags ${(low & 0xfff).toString(16)}`)
      if (!(low & US)) found.push(`${where} is not for CPL 3`)
      if (level > 1) using(target, level - 1)
      else if (low & RW) {
        using(target, FRAME_USE.writable)
        if (isTable(target) || frames.use[target] === FRAME_USE.descriptors)
          found.push(`${where} makes a table writable`)
      } else refer(target)
    }
  }
  if (own.size > 1 || own.has('0')) found.push(`roots have other tables of the hypervisor: ${[...own].join(', ')}`)
  for (const frame of owned) {
    if (frames.use[frame] === FRAME_USE.descriptors && frames.uses[frame]! > 0) {
      for (let at = frame * 1024 + 1; at < (frame + 1) * 1024; at += 2)
        if (givesPrivilege(words[at]!)) found.push(`frame ${frame} has descriptor ${words[at]!.toString(16)}`)
    }
    if ((references.get(frame) ?? 0) !== frames.references[frame])
      found.push(`frame ${frame}: ${frames.references[frame]} references, ${references.get(frame) ?? 0} counted`)
    const counted = uses.get(frame) ?? new Map<number, number>()
    if (counted.size > 1) found.push(`frame ${frame} has several uses: ${[...counted.keys()].join(', ')}`)
    const [[use, count] = [frames.use[frame]!, 0]] = counted
    if (frames.uses[frame] !== count || (count > 0 && use !== frames.use[frame]))
      found.push(`frame ${frame}: ${frames.uses[frame]} uses as ${frames.use[frame]}, ${count} counted as ${use}`)
    if (frames.references[frame] === 0) found.push(`frame ${frame} is owned and has no reference`)
  }
  for (let frame = 0; frame < frames.length; frame++) {
    if (frames.owner[frame] === 0 && frames.references[frame]! > 0)
      found.push(`frame ${frame} has no owner but has references`)
  }
  return found
}

/** A segment that another privilege than the user's has, or a gate or system segment that can be used. (SDM Vol. 3A, "Segment Descriptors") */
function givesPrivilege(high: number): boolean {
  const [isPresent, isSegment] = [(high >>> 15) & 1, (high >>> 12) & 1]
  const [type, privilege] = [(high >>> 8) & 15, (high >>> 13) & 3]
  if (!isPresent) return false
  if (isSegment) return privilege !== 3
  return type !== 0 && !(type === 12 && privilege === 0)
}

import { describe, expect, it, vi } from 'vitest'
import { FrameReturn, gpa, NetworkCable, VcpuKick } from '@nonroot/contracts'
import type { ConsoleBackend, DeviceContext, HostBackends, Iommu, Schedulable } from '@nonroot/contracts'
import { RoundRobin } from '../scheduling/round-robin.ts'
import { createHypervisor } from './hypervisor.ts'
import { HALT, scriptedStack, SHUTDOWN } from '../testing/scripted-stack.ts'
import type { Guest, ScriptedCpu, ScriptedStackOptions } from '../testing/scripted-stack.ts'

const backends: HostBackends = {
  open: async (kind) =>
    (kind === 'entropy'
      ? { fill() {} }
      : { readFile: async () => new Uint8Array(), resolve: (path: string) => path }) as never,
}

interface TestConsole extends ConsoleBackend {
  text: string
  type(text: string): void
}

function testConsole(): TestConsole {
  const listeners = new Set<(bytes: Uint8Array) => void>()
  const console: TestConsole = {
    text: '',
    write: (bytes) => void (console.text += String.fromCharCode(...bytes)),
    onInput: (listener) => (listeners.add(listener), () => listeners.delete(listener)),
    size: () => undefined,
    onResize: () => () => {},
    type: (text) => listeners.forEach((listener) => listener(new TextEncoder().encode(text))),
  }
  return console
}

async function vmOf(guest: Guest, options: Omit<ScriptedStackOptions, 'guest'> = {}) {
  const hypervisor = await createHypervisor(scriptedStack({ guest, ...options }), { backends })
  const console = testConsole()
  const vm = await hypervisor.createVm({ console })
  const value = (name: string): number => vm.samples().find((sample) => sample.name === name)?.value ?? NaN
  return { hypervisor, vm, console, value }
}

const out = ({ ports }: ScriptedCpu, port: number, value: number): void => void ports.io.writePort(port, 1, value)
const print = (cpu: ScriptedCpu, text: string): void => {
  for (const char of text) out(cpu, 0x10, char.charCodeAt(0))
}

describe('how a VM ends', () => {
  it.each<{ name: string; guest: Guest; end: object }>([
    { name: 'power off', guest: (cpu) => void out(cpu, 0x20, 0), end: { state: 'poweredOff' } },
    { name: 'exit status', guest: (cpu) => void out(cpu, 0x21, 7), end: { state: 'exited', status: 7 } },
    {
      name: 'triple fault',
      guest: () => SHUTDOWN,
      end: { state: 'crashed', reason: 'triple fault', vcpu: 0, rip: 0x1000n },
    },
    {
      name: 'failure',
      guest: () => ({ reason: 'failure', message: 'entry check guest.cr0 failed', rip: 5n }),
      end: { state: 'crashed', reason: 'entry check guest.cr0 failed', vcpu: 0, rip: 5n },
    },
    {
      name: 'a device that throws',
      guest: (cpu) => void cpu.ports.io.readPort(0x25, 1),
      end: {
        state: 'crashed',
        reason: 'a part of the hypervisor failed: the device broke (the last device asked was io0)',
        vcpu: 0,
        rip: 0x1000n,
      },
    },
    {
      name: 'halted for ever',
      guest: (cpu) => ((cpu.interruptsEnabled = false), HALT),
      end: { state: 'crashed', reason: 'halted with interrupts disabled: nothing can wake it', vcpu: 0, rip: 0x1000n },
    },
    {
      name: 'host memory exhausted',
      guest: (cpu) => void cpu.ports.guestMemory.fill(2 ** 20, 31 * 2 ** 20, 1),
      end: {
        state: 'crashed',
        reason:
          'host memory is exhausted: all 4070 frames are in use; make host.memory larger or machine.memory smaller',
      },
    },
  ])('$name', async ({ guest, end }) => {
    const { vm } = await vmOf(guest, { machine: { memory: 32 * 2 ** 20 } })
    expect(await vm.run()).toEqual(end)
    expect(vm.state).toBe('ended')
    await expect(vm.run()).rejects.toThrow('it runs once')
    await vm.dispose()
  })
})

describe('a vCPU that needs a page', () => {
  /** vCPU 0 reads a page that is away, and ends the VM with what it finds; vCPU 1 prints, and lets the page arrive. */
  const guest =
    (deliver: (resolve: (bytes: Uint8Array) => void, reject: (error: Error) => void) => void): Guest =>
    (cpu) => {
      const { guestFrames } = cpu.ports
      if (cpu.index === 1) {
        cpu.step++
        print(cpu, 'x')
        if (cpu.step === 50) (guestFrames.state(0x5000) as { filler: { arrive?: () => void } }).filler.arrive?.()
        return cpu.step % 2 ? undefined : { reason: 'budget' }
      }
      if (cpu.step++ === 0) {
        let arrive = (): void => {}
        const content = new Promise<Uint8Array>((resolve, reject) => (arrive = () => deliver(resolve, reject)))
        const filler = { fill: () => content, fillNow: () => {}, arrive: () => arrive() }
        guestFrames.park(0x5000, filler)
      }
      const at = guestFrames.translate(0x5000, 'read')
      if (at === 'wait') return { reason: 'memory', address: gpa(0x5000) }
      out(cpu, 0x21, cpu.ports.guestMemory.readU8(0x5000)!)
      return undefined
    }

  it('waits for it, and the other vCPU goes on', async () => {
    const run = guest((resolve) => resolve(new Uint8Array(4096).fill(9)))
    const { vm, console, value } = await vmOf(run, { machine: { vcpus: 2 } })
    expect(await vm.run()).toEqual({ state: 'exited', status: 9 })
    expect(console.text.length).toBeGreaterThanOrEqual(50)
    // It is not asked again and again.
    expect(value('vm.returns.memory')).toBe(1)
    await vm.dispose()
  })
  it('ends with its VM where the page cannot be brought back', async () => {
    const { vm } = await vmOf(
      guest((_, reject) => reject(new Error('checksum is wrong'))),
      { machine: { vcpus: 2 } },
    )
    expect(await vm.run()).toEqual({
      state: 'crashed',
      reason: 'memory at 0x5000 cannot be brought back: checksum is wrong',
      vcpu: 0,
      rip: 0x1000n,
    })
    await vm.dispose()
  })
  it('waits for a frame in vain where the host has none, and no other VM is harmed', async () => {
    const greedy: Guest = (cpu) => {
      const address = gpa(2 ** 20 + cpu.step++ * 4096)
      return cpu.ports.guestFrames.translate(address, 'write') === 'wait' ? { reason: 'memory', address } : undefined
    }
    const stack = scriptedStack({ guest: greedy, machine: { memory: 32 * 2 ** 20 } })
    const hypervisor = await createHypervisor(stack, { backends })
    const [one, other] = [await hypervisor.createVm(), await hypervisor.createVm()]
    const end = await one.run()
    expect(end).toMatchObject({
      state: 'crashed',
      reason: expect.stringContaining('host memory is exhausted') as string,
      vcpu: 0,
    })
    await one.dispose()
    // What the first one had is the second one's now.
    expect(hypervisor.hostMemory.freeFrames).toBeGreaterThan(4000)
    expect(other.state).toBe('created')
    await hypervisor.dispose()
  })
})

describe('what a device reaches of memory', () => {
  const contexts: DeviceContext[] = []
  const devices = {
    nic: (_: unknown, context: DeviceContext) => (contexts.push(context), {}),
    disk: (_: unknown, context: DeviceContext) => (contexts.push(context), {}),
  }
  const guest: Guest = (cpu) => {
    cpu.ports.guestMemory.writeU32(0x3000, 0x1111)
    cpu.ports.guestMemory.writeU32(0x7000, 0x2222)
    out(cpu, 0x20, 0)
    return undefined
  }
  it('is all of it, and where memory is', async () => {
    contexts.length = 0
    const { vm } = await vmOf(guest, { devices })
    await vm.run()
    expect(contexts.map(({ dma }) => dma.readU32(0x3000))).toEqual([0x1111, 0x1111])
    expect(contexts[0]!.memoryMap).toMatchObject({
      size: 2 ** 21 - 0x20000,
      regions: [{ start: 0 }, { start: 0xc0000 }],
    })
    const frames = contexts[0]!.capability(FrameReturn)
    expect([frames.release([{ address: gpa(0x3000), length: 4096 }]), contexts[1]!.dma.readU32(0x3000)]).toEqual([1, 0])
    await vm.dispose()
  })
  it('is what the IOMMU of the stack maps for it, and nothing else', async () => {
    contexts.length = 0
    const maps: Record<string, ReadonlyMap<number, number>> = { nic: new Map([[0x1000, 0x7000]]), disk: new Map() }
    const iommu: Iommu = {
      attach: ({ name }, memory) => {
        const at = (address: number): number => {
          const page = maps[name]!.get(address - (address % 4096))
          return page === undefined ? NaN : page + (address % 4096)
        }
        return Object.assign(Object.create(memory) as typeof memory, {
          readU32: (address: number) => memory.readU32(at(address)),
          writeU32: (address: number, value: number) => memory.writeU32(at(address), value),
        })
      },
    }
    const { vm } = await vmOf(guest, { devices, iommu })
    await vm.run()
    const [nic, disk] = contexts.map(({ dma }) => dma)
    expect([nic!.readU32(0x1000), nic!.readU32(0x3000), disk!.readU32(0x1000)]).toEqual([0x2222, undefined, undefined])
    expect([nic!.writeU32(0x1004, 5), disk!.writeU32(0x1000, 5), nic!.readU32(0x1004)]).toEqual([true, false, 5])
    await vm.dispose()
  })
})

describe('the run loop', () => {
  it('sleeps while the guest is halted, until its timer', async () => {
    const { vm, console, value } = await vmOf((cpu) => {
      if (cpu.take() === 32) print(cpu, '.')
      if (console.text.length === 5) return void out(cpu, 0x20, 0)
      out(cpu, 0x23, 200)
      for (let twice = 0; twice < 2; twice++) return HALT
      return undefined
    })
    const started = performance.now()
    const before = process.cpuUsage()
    expect(await vm.run()).toEqual({ state: 'poweredOff' })
    const { user, system } = process.cpuUsage(before)
    expect(console.text).toBe('.....')
    expect(performance.now() - started).toBeGreaterThan(1)
    expect(value('vm.idleNs')).toBeGreaterThan(0.5e6)
    expect((user + system) / 1000).toBeLessThan(performance.now() - started + 20)
    expect(value('vm.returns.halt')).toBeGreaterThanOrEqual(5)
  })

  it('is woken by input', async () => {
    const { vm, console } = await vmOf((cpu) => (cpu.take() === 32 ? void out(cpu, 0x21, 3) : HALT))
    setTimeout(() => console.type('x'), 20)
    expect(await vm.run()).toEqual({ state: 'exited', status: 3 })
  })

  it('lets the event loop have its turn while the guest is busy', async () => {
    const { vm } = await vmOf(() => undefined)
    let turns = 0
    const timer = setInterval(() => ++turns === 5 && vm.stop(), 1)
    expect(await vm.run()).toEqual({ state: 'stopped' })
    clearInterval(timer)
    expect(turns).toBeGreaterThanOrEqual(5)
  })

  it('stands still while paused', async () => {
    const { vm, value } = await vmOf(() => undefined)
    const ended = vm.run()
    await new Promise((resolve) => setTimeout(resolve, 10))
    vm.pause()
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(vm.state).toBe('paused')
    const [instructions, guestNs] = [value('vcpu0.instructions'), value('vm.guestNs')]
    await new Promise((resolve) => setTimeout(resolve, 10))
    expect([value('vcpu0.instructions'), value('vm.guestNs')]).toEqual([instructions, guestNs])
    vm.resume()
    await new Promise((resolve) => setTimeout(resolve, 10))
    expect(value('vcpu0.instructions')).toBeGreaterThan(instructions)
    vm.pause()
    vm.stop()
    expect(await ended).toEqual({ state: 'stopped' })
  })

  it('asks a device that was not ready again', async () => {
    const { vm } = await vmOf((cpu) => {
      const exit = (cpu as unknown as { portExit: { port: number; data: number } & object }).portExit
      if (cpu.step === 1) return void out(cpu, 0x21, exit.data)
      cpu.step = 1
      expect(cpu.ports.io.readPort(0x24, 1)).toBe(-1)
      exit.port = 0x24
      return exit as never
    })
    expect(await vm.run()).toEqual({ state: 'exited', status: 0x5a })
  })

  it('starts the machine over, or ends it', async () => {
    let boots = 0
    const guest: Guest = (cpu) => void out(cpu, boots < 3 ? 0x22 : 0x20, 0)
    const { vm } = await vmOf(guest, { onBoot: () => boots++ })
    expect(await vm.run()).toEqual({ state: 'poweredOff' })
    expect(boots).toBe(3)
    boots = 0
    const other = await vmOf(guest, { onBoot: () => boots++, machine: { onReset: 'end' } })
    expect(await other.vm.run()).toEqual({ state: 'poweredOff' })
    expect(boots).toBe(1)
  })

  it('runs several vCPUs in turns', async () => {
    const seen = new Set<number>()
    const { vm } = await vmOf(
      (cpu) => {
        seen.add(cpu.index)
        if (seen.size === 3) out(cpu, 0x20, 0)
        return undefined
      },
      { machine: { vcpus: 3 } },
    )
    expect(await vm.run()).toEqual({ state: 'poweredOff' })
  })

  it('tells a tracer of slices', async () => {
    const stack = scriptedStack({ guest: (cpu) => void out(cpu, 0x20, 0) })
    const hypervisor = await createHypervisor(stack, { backends })
    const { freeFrames } = hypervisor.hostMemory
    const slices: string[] = []
    const record = (track: string, name: string) => void slices.push(`${track} ${name}`)
    const vm = await hypervisor.createVm({ tracer: { slice: record, span: record } })
    await vm.run()
    expect(slices).toEqual(['vcpu0 io0 write', 'vcpu0 budget'])
    expect(vm.info()).toMatchObject({ state: 'ended', placed: [{ what: 'kernel' }], vcpus: [{ rip: 0x1000n }] })
    await hypervisor.dispose()
    expect(hypervisor.hostMemory.freeFrames).toBe(freeFrames)
  })
})

describe('a deterministic clock', () => {
  /** Works, sleeps and prints the time, in a pattern of its own. */
  const guest: Guest = (cpu) => {
    if (cpu.take() === 32) print(cpu, `${cpu.ports.clock.nowNs()} `)
    cpu.step++
    if (cpu.step > 40_000) return void out(cpu, 0x20, 0)
    if (cpu.step % 1000 === 0) out(cpu, 0x23, (cpu.step * 7) % 256)
    if (cpu.step % 1700 === 0) return cpu.ports.clock.nextDeadline() === Infinity ? undefined : HALT
    return undefined
  }

  it('gives the same console and the same counts twice', async () => {
    const once = async () => {
      const { vm, console } = await vmOf(guest, { machine: { clock: 'deterministic' } })
      await vm.run()
      const counts = vm
        .samples()
        .filter(({ name }) => !/^vm\.(runNs|idleNs)$/.test(name))
        .map(({ name, value }) => `${name} ${value}`)
      return { text: console.text, counts }
    }
    const first = await once()
    expect(first.text.split(' ').length).toBeGreaterThan(20)
    expect(await once()).toEqual(first)
  })

  it('hears of input at whole milliseconds: before the guest ran, from within its output, while it sleeps', async () => {
    const times: number[] = []
    const { vm, console } = await vmOf(
      (cpu) => {
        if (cpu.take() === 32) {
          times.push(cpu.ports.clock.nowNs())
          if (times.length === 1) print(cpu, '?')
          if (times.length === 3) out(cpu, 0x20, 0)
          if (times.length !== 2) return undefined
          setTimeout(() => console.type('late'), 5)
          return HALT
        }
        return undefined
      },
      { machine: { clock: 'deterministic' } },
    )
    const { write } = console
    console.write = (bytes) => {
      write(bytes)
      console.type('answer')
    }
    console.type('early')
    expect(await vm.run()).toEqual({ state: 'poweredOff' })
    // The clock stands still while there is nothing to do, so the third is the next millisecond, however late.
    expect(times.map((ns) => Math.floor(ns / 1e6))).toEqual([1, 2, 3])
    expect(times.every((ns) => ns % 1e6 < 10)).toBe(true)
  })

  it('stands still until the host has done what the guest waits for', async () => {
    const hostTimes: number[] = []
    const { vm } = await vmOf(
      (cpu) => {
        if (cpu.step++ === 10)
          cpu.ports.clock.setTimer(5000, () => {
            const until = new Promise((resolve) => setTimeout(resolve, 30))
            // What follows from it is done, too, before the guest goes on.
            void until.then(() => 0).then(() => hostTimes.push(cpu.ports.clock.nowNs()))
            ;(vm as unknown as { hold(until: Promise<unknown>): void }).hold(until)
          })
        if (cpu.step === 20_000) out(cpu, 0x20, 0)
        return undefined
      },
      { machine: { clock: 'deterministic' } },
    )
    await vm.run()
    expect(hostTimes.length).toBe(1)
    expect(hostTimes[0]).toBeGreaterThanOrEqual(5000)
    expect(hostTimes[0]).toBeLessThan(5020)
  })

  it('ends a slice at a deadline that the guest sets in it', async () => {
    const times: number[] = []
    const { vm } = await vmOf(
      (cpu) => {
        if (cpu.step++ === 10) out(cpu, 0x23, 3)
        if (cpu.take() === 32) times.push(cpu.ports.clock.nowNs())
        if (cpu.step === 5000) out(cpu, 0x20, 0)
        return undefined
      },
      { machine: { clock: 'deterministic' } },
    )
    await vm.run()
    expect(times.length).toBe(1)
    expect(times[0]).toBeGreaterThanOrEqual(3011)
    expect(times[0]).toBeLessThan(3020)
  })
})

describe('a deterministic clock’s deadline', () => {
  it.each([0, 200])('ends a slice to the instruction, though the vCPU exceeds budgets by %i', async (excess) => {
    const times: number[] = []
    const { vm } = await vmOf(
      (cpu) => {
        cpu.excess = excess
        if (cpu.step++ === 10) out(cpu, 0x23, 255)
        if (cpu.take() === 32) times.push(cpu.ports.clock.nowNs())
        if (cpu.step === 300_000) out(cpu, 0x20, 0)
        return undefined
      },
      { machine: { clock: 'deterministic' } },
    )
    await vm.run()
    expect(times.length).toBe(1)
    expect(times[0]).toBeGreaterThanOrEqual(255_011)
    expect(times[0]).toBeLessThan(255_020)
  })
})

describe('two VMs on one thread', () => {
  const OFF = 3
  /** Prints its name for so many rounds, halting between them until its timer; both share one script, told apart by their input. */
  const twoVms = async (guests: Readonly<Record<string, Guest>>, schedule: Readonly<Record<string, object>> = {}) => {
    const byIo = new Map<unknown, Guest>()
    const stack = scriptedStack({ guest: (cpu) => byIo.get(cpu.ports.io)!(cpu) })
    const { create } = stack.cpu.definition as { create: (options: never, context: never) => unknown }
    let guest: Guest
    Object.assign(stack.cpu.definition, {
      create: (options: never, context: never) => {
        const mode = create(options, context) as { createVcpu(index: number, ports: never): { ports: { io: unknown } } }
        return {
          createVcpu: (index: number, ports: never) => {
            const vcpu = mode.createVcpu(index, ports)
            byIo.set(vcpu.ports.io, guest)
            return vcpu
          },
        }
      },
    })
    const hypervisor = await createHypervisor(stack, { backends })
    const vms = []
    for (const [name, script] of Object.entries(guests)) {
      guest = script
      const console = testConsole()
      vms.push({ console, vm: await hypervisor.createVm({ name, console, schedule: schedule[name] ?? {} }) })
    }
    return { hypervisor, vms }
  }
  const busy: Guest = () => undefined
  /** Sets a timer of 100 µs, halts, and prints when it comes; then powers off. */
  const sleeper =
    (rounds: number): Guest =>
    (cpu) => {
      if (cpu.take() === 32) print(cpu, '.')
      if (cpu.step++ === rounds) return void out(cpu, 0x20, 0)
      out(cpu, 0x23, 100)
      return HALT
    }

  it('a guest that never halts does not hold up one that sleeps', async () => {
    const { vms, hypervisor } = await twoVms({ busy, sleeper: sleeper(20) })
    const [first, second] = vms.map(({ vm }) => vm.run())
    expect((await second!).state).toBe('poweredOff')
    expect(vms[1]!.console.text).toBe('.'.repeat(20))
    expect(vms[0]!.vm.state).toBe('running')
    vms[0]!.vm.stop()
    expect((await first!).state).toBe('stopped')
    await hypervisor.dispose()
  })

  it('counts the time that one waits for the other in whole nanoseconds', async () => {
    const stolen: number[] = []
    let now = 0
    vi.spyOn(performance, 'now').mockImplementation(() => (now += 0.1 + 1e-9))
    const hypervisor = await createHypervisor(scriptedStack({ guest: busy, onSteal: (ns) => stolen.push(ns) }), {
      backends,
    })
    const vms = [await hypervisor.createVm(), await hypervisor.createVm()]
    const runs = vms.map((vm) => vm.run())
    while (stolen.length < 4) await new Promise((resolve) => setTimeout(resolve, 1))
    vi.restoreAllMocks()
    await hypervisor.dispose()
    await Promise.all(runs)
    expect(stolen.filter((ns) => !Number.isInteger(ns) || ns <= 0)).toEqual([])
  })

  it('differs from its host in what its own stack says, and has the claim that it or the embedder names', async () => {
    const claims: Schedulable[] = []
    const host = scriptedStack({ guest: busy })
    const scheduler = {
      ...host.cpu,
      ...{ role: 'scheduler', thing: 'stack.scheduler' },
      definition: {
        role: 'scheduler',
        name: 'counting',
        create: () => {
          const inner = new RoundRobin()
          const { add } = inner
          inner.add = (who) => (claims.push(who), add.call(inner, who))
          return inner
        },
      },
    } as never
    const hypervisor = await createHypervisor({ ...host, scheduler, layers: [...host.layers, scheduler] }, { backends })
    const own = scriptedStack({ guest: sleeper(OFF), machine: { memory: 4 * 2 ** 20, vcpus: 2 } })
    const stack = {
      ...own,
      cpu: { ...own.cpu, options: { another: 'mode' } },
      config: { ...own.config, schedule: { weight: 5, cap: 0.5 }, reclaim: { minimum: 2 ** 20, shares: 7 } },
    }
    const vms = [
      await hypervisor.createVm({ name: 'as-host' }),
      await hypervisor.createVm({ name: 'own', stack }),
      await hypervisor.createVm({ name: 'told', stack, schedule: { weight: 9 } }),
    ]
    const ends = vms.map((vm) => vm.run())
    expect(claims.map(({ vm, vcpu, weight, cap }) => [vm, vcpu, weight, cap])).toEqual([
      ['as-host', 0, 1, undefined],
      ...[0, 1].map((vcpu) => ['own', vcpu, 5, 0.5]),
      ...[0, 1].map((vcpu) => ['told', vcpu, 9, 0.5]),
    ])
    expect(vms[1]!.memory()).toMatchObject({
      minimumFrames: 256,
      shares: 7,
      maximumFrames: (4 * 2 ** 20 - 0x20000) / 4096,
    })
    // It runs the guest of its own CPU mode: that one powers off, the host's never does.
    vms[2]!.stop()
    expect((await ends[1]!).state).toBe('poweredOff')
    expect(vms[0]!.state).toBe('running')
    await hypervisor.dispose()
    await Promise.all(ends)
  })

  it('one that fails leaves the other running', async () => {
    const broken: Guest = (cpu) => void cpu.ports.io.readPort(0x25, 1)
    const { vms, hypervisor } = await twoVms({ broken, sleeper: sleeper(OFF) })
    const ends = await Promise.all(vms.map(({ vm }) => vm.run()))
    expect(ends.map(({ state }) => state)).toEqual(['crashed', 'poweredOff'])
    await hypervisor.dispose()
  })

  it('one that is paused does not hold up the other', async () => {
    const { vms, hypervisor } = await twoVms({ busy, sleeper: sleeper(OFF) })
    const runs = vms.map(({ vm }) => vm.run())
    vms[0]!.vm.pause()
    expect((await runs[1]!).state).toBe('poweredOff')
    await hypervisor.dispose()
    expect((await runs[0]!).state).toBe('stopped')
  })

  it('gives back each frame once, in whatever order they are disposed', async () => {
    const { vms, hypervisor } = await twoVms({ a: sleeper(OFF), b: sleeper(OFF) })
    const free = hypervisor.hostMemory.freeFrames
    await Promise.all(vms.map(({ vm }) => vm.run()))
    await vms[0]!.vm.dispose()
    await vms[0]!.vm.dispose()
    await hypervisor.dispose()
    await hypervisor.dispose()
    expect(hypervisor.hostMemory.freeFrames).toBeGreaterThanOrEqual(free)
  })

  it('a kick by another thread wakes a vCPU that sleeps', async () => {
    let runs = 0
    const { vms, hypervisor } = await twoVms({
      sleeper: (cpu) => (runs++ === 0 ? HALT : void out(cpu, 0x20, 0)),
    })
    const end = vms[0]!.vm.run()
    const address = vms[0]!.vm.kickAddresses[0]!
    setTimeout(() => new VcpuKick(address).post(), 5)
    await Promise.race([end, new Promise((resolve) => setTimeout(resolve, 2000))])
    expect(vms[0]!.vm.samples().find(({ name }) => name === 'vm.returns.halt')!.value).toBeGreaterThan(1)
    vms[0]!.vm.stop()
    await end
    await hypervisor.dispose()
  })
})

describe('making a VM', () => {
  it('needs something to boot', async () => {
    const hypervisor = await createHypervisor(
      { ...scriptedStack({ guest: () => HALT }), boot: undefined },
      { backends },
    )
    await expect(hypervisor.createVm()).rejects.toMatchObject({ code: 'stack.missing', thing: 'boot' })
  })

  it('names the file that cannot be read', async () => {
    const stack = scriptedStack({ guest: () => HALT })
    const hypervisor = await createHypervisor(
      { ...stack, boot: { ...stack.boot!, image: { kernel: './vmlinuz' } } },
      {
        backends: {
          open: async () =>
            ({ readFile: () => Promise.reject(Object.assign(new Error('x'), { code: 'ENOENT' })) }) as never,
        },
      },
    )
    await expect(hypervisor.createVm()).rejects.toThrow('cannot read the kernel /vmlinuz: there is no such file')
  })

  it('gives devices what they may touch, and names both where claims collide', async () => {
    const stack = scriptedStack({
      guest: (cpu) => void out(cpu, 0x20, 0),
      devices: {
        sensor: (_options, context) => {
          const region = context.mmio(0x1000, { read: () => 42, write: () => {} })
          expect(region.base).toBe(0xfebf_f000)
          context.interrupt('ready').pulse()
          expect(() => context.interrupt(99)).toThrow('there is no interrupt line 99')
          expect(() => context.pci({} as never)).toThrow('the stack has no PCI bus')
          expect(() => context.capability(Symbol.for('x/Thing') as never)).toThrow('the stack has no Thing')
          return {}
        },
        clash: (_options, context) => (context.portIo(0x1e, 4, { read: () => 0, write: () => {} }), {}),
      },
    })
    const hypervisor = await createHypervisor(stack, { backends })
    await expect(hypervisor.createVm()).rejects.toThrow(
      'clash: ports 0x1e..0x21 collide with io0, which has 0x20..0x20',
    )
  })

  it('plugs and pulls the cables of network cards, by name too', async () => {
    const cables = { a: true, b: true }
    const card = (name: 'a' | 'b') => () => ({
      offers: new Map([[NetworkCable, { plugged: true, plug: (on: boolean) => void (cables[name] = on) }]]),
    })
    const stack = scriptedStack({
      guest: (cpu) => void out(cpu, 0x20, 0),
      devices: { a: card('a'), b: card('b'), c: () => ({}) },
    })
    const vm = await (await createHypervisor(stack, { backends })).createVm()
    expect([vm.plug(false, 'a'), { ...cables }]).toEqual([1, { a: false, b: true }])
    expect([vm.plug(false), { ...cables }]).toEqual([2, { a: false, b: false }])
    expect([vm.plug(true, 'c'), vm.plug(true, 'b'), { ...cables }]).toEqual([0, 1, { a: false, b: true }])
  })

  it('is a console of web streams by default', async () => {
    const stack = scriptedStack({
      guest: (cpu) => (cpu.take() === 32 ? (print(cpu, 'hello'), void out(cpu, 0x20, 0)) : HALT),
    })
    const vm = await (await createHypervisor(stack, { backends })).createVm()
    const writer = vm.console.input.getWriter()
    setTimeout(() => void writer.write('x'), 5)
    expect((await vm.run()).state).toBe('poweredOff')
    const reader = vm.console.output.getReader()
    let text = ''
    while (text.length < 5) text += new TextDecoder().decode((await reader.read()).value)
    expect(text).toBe('hello')
  })
})

/** VMs for programs, and the command as a function. */
export { openVm } from './embed/open-vm.ts'
export type { OpenVm, OpenVmEvent, VmSettings } from './embed/open-vm.ts'
export type { GuestConsole } from './embed/guest-console.ts'
export type { ExecOptions, ExecResult, GuestProcess, GuestSignal, SpawnOptions } from './embed/guest-process.ts'
export { nodeImageHost } from './image-host.ts'
export { NonrootError } from '@nonroot/contracts'
export { main } from './main.ts'
export type { CommandIo } from './io.ts'

/** The host's hardware: functions that can be assigned to VMs. */
export { HostMachine, type HostMachineOptions } from './host-machine.ts'

/** The host's hardware: functions that can be assigned to VMs. */
export { HostMachine } from './host-machine.ts'

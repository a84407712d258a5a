/** What strategies need from and give to each other. A composition is valid if everything needed is given. */

/**
 * The names used by our strategies, with their meaning, which the kernel quotes in its refusals. A plugin may add names of its own (`acme.teleport`);
 * the rule is the same.
 */
export const CAPABILITIES = {
  secondStage: 'the processor translates guest-physical addresses through a second set of tables',
  hardwareRoot: 'the hypervisor chooses the first-stage tables that the processor walks, and sees page faults first',
  tableHypercalls: 'the guest asks the hypervisor for every change of its page tables',
  directPaging: "the guest's own tables hold machine addresses and every update is validated",
  unmodifiedKernel: 'a kernel that knows nothing of virtualisation runs',
  pvEntry: 'the guest kernel is entered through a paravirtual interface, deprivileged',
  interruptController: 'lines and messages become vectors',
  pci: 'a PCI bus with configuration space, BARs, MSI and MSI-X',
  acpi: 'ACPI fixed hardware and tables',
  eventChannels: "Xen's event channels",
  grantTables: "Xen's grant tables",
  xenstore: "Xen's store, in which guests and back ends find each other",
  virtioTransport: 'a transport for virtio devices',
  threadPerVm: 'each VM has a thread of its own, which the system schedules',
  balloon: 'a balloon device in the guest',
} as const

export type Capability = keyof typeof CAPABILITIES | (string & {})

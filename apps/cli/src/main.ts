/** The `nonroot` command: arguments and options. A command's code is imported when it is called. */

import { ExitCode } from '@nonroot/contracts'
import { Argument, Command, CommanderError, Option } from 'commander'
import type { DeviceServeOptions } from './commands/device-serve.ts'
import type { ExecOptions } from './commands/exec.ts'
import type { ImageOptions } from './commands/image.ts'
import type { PruneOptions } from './commands/image-cache.ts'
import type { ImageDiskOptions } from './commands/image-disk.ts'
import type { JitDumpOptions } from './commands/jit.ts'
import { json, processIo, report } from './io.ts'
import type { CommandIo } from './io.ts'
import type { MemoryOptions } from './commands/memory.ts'
import type { StopOptions } from './commands/stop.ts'
import type { RunOptions } from './run/run-options.ts'
import { splitCommand } from './run/split-command.ts'
import { version } from './version.ts'

const collect = (value: string, before: string[]): string[] => [...before, value]

const setOption = () =>
  new Option('--set <key=value>', 'change the configuration, as in machine.memory=1GiB; may be repeated')
    .argParser(collect)
    .default([], 'none')
const listOption = (flags: string, description: string) =>
  new Option(flags, description).argParser((value: string, before: string[] | undefined) => [...(before ?? []), value])
const mirrorOption = () =>
  listOption('--mirror <url>', "get Debian's packages from this mirror, not by apt-get; may be repeated, as for security updates")
const jsonOption = () => new Option('--json', 'print JSON')

const EXIT_CODES = `
Exit status:
  ${ExitCode.ok}    success
  ${ExitCode.internal}    a bug in nonroot
  ${ExitCode.configuration}    the configuration, a plugin or the command line is wrong; nothing was run
  ${ExitCode.host}    a file or another resource of the host failed
  ${ExitCode.guestCrashed}    the guest crashed
  ${ExitCode.timeout}  the guest hung, or --timeout passed
  ${ExitCode.interrupted}  interrupted
  run: otherwise the guest's own status; with a command, and exec: the command's, 128 + N after signal N
`

/** Runs one command line and gives its exit status. Never throws, never ends the process. */
export async function main(argv: readonly string[], io: CommandIo = processIo): Promise<number> {
  const { ours, command: guestCommand } = splitCommand(argv)
  let status: number = ExitCode.ok
  let messages = io
  const program = new Command('nonroot')
    .description('A hypervisor composed from a configuration file')
    .version(version())
    .addHelpText('after', EXIT_CODES)
    .configureOutput({ writeOut: (text) => io.out(text), writeErr: (text) => io.err(text) })
    .showHelpAfterError('(nonroot --help shows what there is)')
    .exitOverride()
  const command = (parent: Command, definition: string): Command =>
    parent.command(definition).copyInheritedSettings(program)

  command(program, 'run')
    .description('run a guest on a stack')
    .argument('[stack]', 'the stack file; the shipped KVM-like one if left out')
    .addOption(setOption())
    .option('--disk <file>', 'attach this disk and boot the system on it: raw or qcow2')
    .option('--network <what>', 'user, none, hub:NAME, socket:PATH; user if no stack is named')
    .addOption(
      listOption('--forward <[host:]port:guestport>', 'lead a port of the host into the guest; may be repeated'),
    )
    .addOption(
      listOption('--loopback <port>', "open a port of the host's loopback to the guest, at 10.0.2.2, or all: open"),
    )
    .option('--kernel <file>', 'boot this kernel: Linux (bzImage, vmlinux) or Multiboot')
    .option('--initrd <file>', 'initramfs for the kernel, or the Multiboot module')
    .option('--cmdline <text>', "the kernel's command line")
    .addOption(mirrorOption())
    .option('--memory <size>', 'memory of the guest, as in 512M or "2 GiB"')
    .option('--timeout <duration>', `end the guest after 90s, 5m, ...; exit status ${ExitCode.timeout}`)
    .option('--stop-timeout <duration>', 'how long a guest that a signal asks to end may take; 10s if left out')
    .addOption(listOption('--device <kind[,option=value...]>', 'attach a device; may be repeated'))
    .addOption(new Option('--stats [format]', 'tell on standard error what was counted; json for programs').choices(['text', 'json']))
    .addOption(
      new Option('--log-format <format>', 'of messages on standard error; json for programs').choices(['text', 'json']).default('text'),
    )
    .option('--max-rss <size>', 'end the guest if this process has more resident memory, as in 2GiB; exit status 3')
    .option('--trace <file>', 'write a trace of the run that Perfetto opens')
    .option(
      '--profile <file>',
      'write where the guest spent its time: folded stacks, or for speedscope if it ends in .json',
    )
    .option('--symbols <file>', "a System.map or ELF for the profile's names, if not the kernel's own")
    .option('--name <name>', "the VM's name, for nonroot ps and its like; vm0 if left out")
    .option('--logs <folder>', "with several VMs: write each one's console into NAME.log there")
    .option('--verbose', 'say more on standard error')
    .usage('[options] [stack] [-- COMMAND...]')
    .addHelpText(
      'after',
      '\nAfter --: run this command in the guest; its output and exit status become ours.\nCtrl-A X ends the guest, Ctrl-A C opens the monitor, Ctrl-A H lists the keys.',
    )
    .action(async (stack: string | undefined, options: RunOptions) => {
      const { run } = await import('./commands/run.ts')
      if (options.logFormat === 'json') messages = { ...io, jsonLog: true }
      status = await run(stack, { ...options, ...(guestCommand ? { command: guestCommand } : {}) }, messages)
    })

  command(program, 'ps')
    .description('list the VMs that run')
    .addOption(jsonOption())
    .action(async (options: { json?: boolean }) => {
      const { ps } = await import('./commands/ps.ts')
      status = await ps(options, io)
    })
  command(program, 'attach')
    .description("this terminal becomes a running VM's console; Ctrl-A X leaves it")
    .argument('<name>', 'the VM, as nonroot ps lists it: NAME, or HOST/NAME')
    .action(async (name: string) => {
      const { attach } = await import('./commands/attach.ts')
      status = await attach(name, io)
    })
  command(program, 'exec')
    .description('run a command in the guest of a running VM; its output and exit status become ours')
    .argument('<name>', 'the VM, as nonroot ps lists it: NAME, or HOST/NAME')
    .option('-i, --interactive', 'pass our standard input on; the command has none otherwise')
    .option('-t, --tty', 'give the command a terminal, of the size of ours')
    .usage('[options] <name> -- COMMAND...')
    .action(async (name: string, options: ExecOptions) => {
      const { exec } = await import('./commands/exec.ts')
      status = await exec(name, guestCommand ?? [], options, io)
    })
  command(program, 'stop')
    .description('ask the guest of a running VM to shut down, and wait until it has')
    .argument('<name>', 'the VM, as nonroot ps lists it: NAME, or HOST/NAME')
    .option('--force', 'end the VM without asking its guest')
    .option('--timeout <duration>', 'how long to wait; 60s if left out')
    .action(async (name: string, options: StopOptions) => {
      const { stop } = await import('./commands/stop.ts')
      status = await stop(name, options, io)
    })
  command(program, 'memory')
    .description('show who has what of the memory of running hosts, in MiB')
    .option('--watch', 'again each second, until interrupted')
    .option('--plot <file.svg>', 'draw who had what over time, until the host ends')
    .addOption(jsonOption())
    .action(async (options: MemoryOptions) => {
      const { memory } = await import('./commands/memory.ts')
      status = await memory(options, io)
    })
  command(program, 'host')
    .description('list the devices of running hosts, their groups, and the VMs that own them')
    .addOption(jsonOption())
    .action(async (options: { json?: boolean }) => {
      const { host } = await import('./commands/host.ts')
      status = await host(options, io)
    })
  command(program, 'metrics')
    .description('print what a running VM has counted, in the text format of Prometheus')
    .argument('<name>', 'the VM, as nonroot ps lists it: NAME, or HOST/NAME')
    .action(async (name: string) => {
      const { metrics } = await import('./commands/metrics.ts')
      status = await metrics(name, io)
    })

  const config = command(program, 'config').description('look at configurations')
  command(config, 'check')
    .description('say whether a stack file is right: its keys, its packages, their options, and whether they fit')
    .argument('<stack>', 'the stack file')
    .addOption(setOption())
    .addOption(jsonOption())
    .action(async (stack: string, options: { set: string[]; json?: boolean }) => {
      const { configCheck } = await import('./commands/config-check.ts')
      status = await configCheck(stack, options, io)
    })
  command(config, 'schema')
    .description('print the JSON Schema of stack files')
    .action(async () => {
      const { stackJsonSchema } = await import('@nonroot/hypervisor')
      json(io, stackJsonSchema())
    })

  const stack = command(program, 'stack').description('look at stacks')
  command(stack, 'show')
    .description('show what a stack is composed of')
    .argument('<stack>', 'the stack file')
    .addOption(setOption())
    .addOption(jsonOption())
    .option('--graph <file>', 'draw it into an SVG file')
    .option('--stats-from <file>', 'with --graph: figures out of what run --stats=json wrote')
    .action(async (file: string, options: { set: string[]; json?: boolean; graph?: string; statsFrom?: string }) => {
      const { stackShow } = await import('./commands/stack-show.ts')
      status = await stackShow(file, options, io)
    })

  const image = command(program, 'image').description('make guest images')
  command(image, 'debian')
    .description("Debian's kernel and an initramfs out of its packages, into a cache; run takes them from there")
    .option('--flavour <name>', 'which kernel: cloud, generic; cloud for an initramfs, generic for a disk if left out')
    .option('--rootfs', 'a whole Debian with systemd on a disk instead, by mmdebstrap or debootstrap')
    .option('--size <size>', 'of the disk, as in 8G; 4 GiB if left out')
    .option('--to <file>', 'the disk to make, raw or qcow2; in the cache if left out')
    .option('--include <package...>', 'further Debian packages, with what they depend on')
    .option('--modules <module...>', 'further kernel modules')
    .addOption(mirrorOption())
    .option('--keyring <file>', "public keys that sign the mirror's releases; Debian's own if left out")
    .option('--refresh', 'ask the archive again')
    .addOption(jsonOption())
    .action(async (options: ImageOptions) => {
      const { imageDebian } = await import('./commands/image.ts')
      status = await imageDebian(options, io)
    })

  command(image, 'disk')
    .description('a disk with an ext4 file system, out of a folder or a tar archive')
    .argument('<file>', 'the disk to make: qcow2 where its name ends so, else raw')
    .requiredOption('--from <path>', 'a folder, or a tar archive (.tar, .tar.gz, .tar.xz, .tar.zst)')
    .requiredOption('--size <size>', 'of the disk, as in 512M or "2 GiB"')
    .option('--label <text>', 'name of the file system, up to 16 characters')
    .addOption(jsonOption())
    .action(async (file: string, options: ImageDiskOptions) => {
      const { imageDisk } = await import('./commands/image-disk.ts')
      status = await imageDisk(file, options, io)
    })

  command(image, 'ls')
    .description('list the images in the cache')
    .addOption(jsonOption())
    .action(async (options: { json?: boolean }) => {
      const { imageLs } = await import('./commands/image-cache.ts')
      status = await imageLs(options, io)
    })
  command(image, 'prune')
    .description('remove from the cache the images of other versions, and what is left of interrupted work; disks stay')
    .option('--all', 'remove all images but disks; they are made again when they are needed')
    .option('--dry-run', 'only say what would be removed')
    .addOption(jsonOption())
    .action(async (options: PruneOptions) => {
      const { imagePrune } = await import('./commands/image-cache.ts')
      status = await imagePrune(options, io)
    })

  const jit = command(program, 'jit').description('look at what the processor makes of guest code')
  command(jit, 'dump')
    .description('show guest code, the IR of its compiled region, and its WebAssembly')
    .argument('[file]', 'a flat binary of guest code, an ELF, or a Linux kernel')
    .option('--bytes <hex>', 'the code itself, as in "48 01 d8"')
    .option(
      '--at <offset>',
      'where to begin: an offset as in 0x1200; in an ELF or a kernel an address or a symbol',
      '0',
    )
    .option('--mode <bits>', 'size of the code: 64, 32, 16', '64')
    .option('--handlers', "also show the IR of the interpreter's handlers")
    .addOption(jsonOption())
    .action(async (file: string | undefined, options: JitDumpOptions) => {
      const { jitDump } = await import('./commands/jit.ts')
      status = await jitDump(file, options, io)
    })

  command(program, 'plugins')
    .description('list the plugins that are installed here, or those that a stack names')
    .argument('[stack]', 'a stack file')
    .addOption(jsonOption())
    .action(async (file: string | undefined, options: { json?: boolean }) => {
      const { plugins } = await import('./commands/plugins.ts')
      status = await plugins(file, options, io)
    })

  command(program, 'completion')
    .description('print a script by which a shell completes command lines: source it, or put it where the shell looks')
    .addArgument(new Argument('<shell>', 'the shell').choices(['bash', 'zsh', 'fish']))
    .action(async (shell: 'bash' | 'zsh' | 'fish') => {
      const [{ completion }, { shippedStackNames }] = await Promise.all([import('./commands/completion.ts'), import('./host.ts')])
      io.out(completion(shell, program, shippedStackNames()))
    })

  const device = command(program, 'device').description('devices in processes of their own')
  command(device, 'serve')
    .description('serve a PCI device to a VM of another process, by vfio-user, until interrupted')
    .argument('<socket>', 'the UNIX socket to listen on')
    .requiredOption('--device <kind,option=value>', 'the device and its options, as in nvme,image=./disk.img')
    .option('--verbose', 'say more on standard error')
    .action(async (socket: string, options: DeviceServeOptions) => {
      const { deviceServe } = await import('./commands/device-serve.ts')
      status = await deviceServe(socket, options, io)
    })

  const create = command(program, 'new').description('start something new')
  command(create, 'device')
    .description('write a package with a device of your own: source, test and README')
    .argument('<name>', 'the name of the package, as in acme-sensor')
    .option('--dir <folder>', 'where to put it; a folder of that name here if left out')
    .option('--virtio', 'a virtio device: queues of buffers instead of registers')
    .addOption(jsonOption())
    .action(async (name: string, options: { dir?: string; virtio?: boolean; json?: boolean }) => {
      const { newDevice } = await import('./commands/new-device.ts')
      status = await newDevice(name, options, io)
    })

  try {
    await program.parseAsync([...ours], { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.ok : ExitCode.configuration
    return report(error, messages, argv.includes('--json'))
  }
  return status
}

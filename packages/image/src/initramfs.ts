/** A Debian guest's root as an initramfs tree: busybox, the init script, selected kernel modules, and the files of packages. */
import type { Bytes } from './bytes.ts'
import { AGENT_PROGRAM_BASE64 } from './agent/program.ts'
import { EXIT_PROGRAM_BASE64 } from './exit-program.ts'
import { AGENT_PATH, EXIT_PROGRAM_PATH, INIT_SCRIPT, LEASE_SCRIPT, LEASE_SCRIPT_PATH, PROFILE } from './init-script.ts'
import { type KernelModule, formatModulesAlias, formatModulesDep } from './modules.ts'
import type { TarEntry } from './tar.ts'
import { Tree } from './tree.ts'

/** What a small guest has no use for; it is most of many packages. */
const LEFT_OUT = [
  /^usr\/share\/(doc|man|info|locale|lintian|bug|doc-base|menu|pixmaps|icons|applications|bash-completion)\//,
  /^usr\/include\//,
  /\.a$/,
]

export const isKept = (entry: Pick<TarEntry, 'path'>): boolean =>
  !LEFT_OUT.some((pattern) => pattern.test(`${entry.path}${'/'}`) || pattern.test(entry.path))

const FILES: Readonly<Record<string, string>> = {
  'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n',
  'etc/group': 'root:x:0:\ntty:x:5:\ndisk:x:6:\nnogroup:x:65534:\n',
  'etc/nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files dns\n',
  'etc/hosts': '127.0.0.1 localhost nonroot\n::1 localhost\n',
  'etc/hostname': 'nonroot\n',
  'etc/profile': PROFILE,
}
const FOLDERS = ['dev', 'proc', 'sys', 'run', 'mnt', 'root', 'var/log', 'var/tmp', 'var/lib']

/** The tree before packages and modules are put in. */
export function createGuestTree(): Tree {
  const tree = new Tree()
  for (const folder of FOLDERS) tree.directory(folder, folder === 'root' ? 0o700 : 0o755)
  tree.directory('tmp', 0o1777)
  // The kernel opens the console before init has mounted devtmpfs.
  tree.characterDevice('dev/console', 5, 1).characterDevice('dev/null', 1, 3, 0o666)
  return tree
}

/** Puts in what makes the tree start: init script, exit program, accounts. After the packages, so that it has the last word. */
/** The agent that runs commands in a guest (README.md, "The agent"), for images of others' making: a static x86-64 ELF for Linux. */
export const agentProgram = (): Uint8Array => program(AGENT_PROGRAM_BASE64)

const program = (base64: string): Uint8Array => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))

export function finishGuestTree(tree: Tree): Tree {
  for (const [path, text] of Object.entries(FILES)) if (path === 'etc/profile' || !tree.get(path)) tree.file(path, text)
  // What the kernel calls when it wants a module.
  if (!tree.get('usr/sbin/modprobe')) tree.link('usr/sbin/modprobe', '/usr/bin/busybox')
  return tree
    .file('init', INIT_SCRIPT, 0o755)
    .file(LEASE_SCRIPT_PATH, LEASE_SCRIPT, 0o755)
    .file(EXIT_PROGRAM_PATH, program(EXIT_PROGRAM_BASE64), 0o755)
    .file(AGENT_PATH, agentProgram(), 0o755)
}

export interface ModuleFile extends KernelModule {
  readonly data: Bytes
}

/** Modules with the tables modprobe reads; depmod would make them at installation, and nothing is installed here. */
export function addModules(tree: Tree, release: string, modules: readonly ModuleFile[], builtin: string): void {
  const folder = `lib/modules/${release}`
  for (const { path, data } of modules) tree.file(`${folder}/${path}`, data)
  tree.file(`${folder}/modules.dep`, formatModulesDep(modules))
  tree.file(`${folder}/modules.alias`, formatModulesAlias(modules))
  tree.file(`${folder}/modules.builtin`, builtin)
}

/** Drivers that virtual machines have a use for, put in where the flavour has them as modules; few are ever loaded. */
export const DEFAULT_MODULES: readonly string[] = [
  ...[
    'virtio_pci',
    'virtio_mmio',
    'virtio_blk',
    'virtio_net',
    'virtio_console',
    'virtio_rng',
    'virtio_balloon',
    'virtio_mem',
    'virtio_scsi',
    'virtio_input',
  ],
  ...['vmw_vsock_virtio_transport', 'virtiofs', '9p', '9pnet_virtio', 'qemu_fw_cfg'],
  ...['sd_mod', 'sr_mod', 'ahci', 'ata_piix', 'nvme', 'e1000', 'e1000e', '8139cp', 'vfio_pci'],
  ...['xen_blkfront', 'xen_netfront'],
  ...['ext4', 'isofs', 'vfat', 'nls_cp437', 'nls_ascii', 'overlay', 'squashfs', 'loop', 'zram', 'tun'],
  ...['button', 'evdev', 'rtc_cmos', 'crc32c_intel', 'crc32c_generic', 'sha256_ssse3', 'af_packet'],
]

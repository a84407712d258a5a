/** Guest images made of distribution packages. */
export { AgentClient, GuestCommand, type AgentEvents, type CommandEvents, type SendFrame } from './agent/client.ts'
export { creditPayload, frame, FrameReader, FromAgent, GUEST_SIGNALS, ToAgent, VERSION as AGENT_VERSION, WINDOW as AGENT_WINDOW, type AgentCommand, type TerminalSize } from './agent/protocol.ts'
export { readAr, type ArMember } from './ar.ts'
export { cachedImages, removeImage, type CachedImage } from './cache.ts'
export { compressionOf, decompress, decompressStream, type Compression, type Decompressors } from './compression.ts'
export { isCpio, readCpio, writeCpio, type CpioEntry } from './cpio.ts'
export { debianImage, FLAVOURS, type DebianImageOptions, type Flavour, type GuestImage } from './debian.ts'
export { demoGuest } from './demo-guest.ts'
export { openDeb, parseControl, type Deb } from './deb.ts'
export * from './disk/index.ts'
export { ImageError, type ImageErrorReason } from './errors.ts'
export type { DiskHost, DiskSource, Fetch, HttpResponse, ImageHost, NewDisk, OnProgress, Progress, RunResult } from './host.ts'
export { AGENT_PORT, DEBIAN_PARAMETERS, fileOverlay, guestParameters, shellCommand, type GuestParameters } from './init-script.ts'
export { addModules, agentProgram, createGuestTree, DEFAULT_MODULES, finishGuestTree, type ModuleFile } from './initramfs.ts'
export { moduleName, readModuleInfo, type ModuleInfo } from './module-info.ts'
export {
  formatModulesAlias,
  formatModulesDep,
  parseModulesBuiltin,
  parseModulesDep,
  parseModulesSoftdep,
  resolveModules,
} from './modules.ts'
export { bootFromDisk, type DiskBoot } from './rootfs/bootable.ts'
export { bootFiles, debianRootfs, type DebianRootfsOptions, type RootfsImage } from './rootfs/rootfs.ts'
export { Apt } from './source/apt.ts'
export { Mirror, type MirroredSuite, type Mirrors } from './source/mirror.ts'
export { PackageSource, parseDepends, type DebianPackage } from './source/source.ts'
export { readTar, readTarStream, type TarEntry, type TarFile, type TarStreamEntry } from './tar.ts'
export { Tree, type TreeNode } from './tree.ts'
export { bzImagePayload, extractVmlinux } from './vmlinux.ts'

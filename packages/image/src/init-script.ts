/** The guest's first program: a busybox shell script, and the kernel parameters that control it. README.md is its specification. */
import { byCodeUnits, encodeText } from './bytes.ts'
import { writeCpio } from './cpio.ts'

/** Where the init script finds the program that reports a status (exit-program.ts), and a command too long for a parameter. */
export const EXIT_PROGRAM_PATH = 'nonroot/exit'
export const COMMAND_PATH = 'nonroot/command'
export const AGENT_PATH = 'nonroot/agent'
/** Of the virtio-console port by which a host reaches the agent. */
export const AGENT_PORT = 'org.nonroot.agent'
/** What udhcpc calls with what it got. (busybox, "udhcpc") */
export const LEASE_SCRIPT_PATH = 'nonroot/lease'

/** Shell built-ins as far as there are: each program costs the start of a process. */
export const LEASE_SCRIPT = `#!/bin/busybox sh
case $1 in
  bound | renew)
    ifconfig $interface $ip netmask $subnet \${mtu:+mtu $mtu}
    for via in $router; do route add default gw $via dev $interface; done
    for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf ;;
esac
`

export const INIT_SCRIPT = `#!/bin/busybox sh
# nonroot's init: mounts, modules, then the system on the disk that root= names, a shell on the console, or one command whose exit
# status it reports. A process costs a million instructions and more: what the shell does itself is left to it.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root
busybox mount -t devtmpfs dev /dev
busybox mkdir -p /dev/pts /dev/shm
echo 'proc /proc proc defaults 0 0
sys /sys sysfs defaults 0 0
devpts /dev/pts devpts mode=620 0 0
shm /dev/shm tmpfs defaults 0 0
tmp /tmp tmpfs defaults 0 0
run /run tmpfs defaults 0 0' >/nonroot/fstab
busybox mount -a -T /nonroot/fstab
busybox --install -s /usr/bin 2>/dev/null
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
echo nonroot >/proc/sys/kernel/hostname
ip link set lo up 2>/dev/null

command= marks= agent= port= network= modules= rows= columns= TERM=vt220
root= rootmode=ro rootflags= rootfstype= rootdelay=30 init=/sbin/init
[ -f /${COMMAND_PATH} ] && command=/${COMMAND_PATH}
read -r parameters </proc/cmdline
set -f
for word in $parameters; do
  case $word in
    nonroot.command=*) command=\${word#*=} ;;
    nonroot.marks=1) marks=1 ;;
    nonroot.agent=1) agent=1 ;;
    nonroot.network=*) network=\${word#*=} ;;
    nonroot.modules=*) modules=\${word#*=} ;;
    nonroot.rows=*) rows=\${word#*=} ;;
    nonroot.columns=*) columns=\${word#*=} ;;
    nonroot.term=*) TERM=\${word#*=} ;;
    root=*) root=\${word#root=} ;;
    rootflags=*) rootflags=\${word#*=} ;;
    rootfstype=*) rootfstype=\${word#*=} ;;
    rootdelay=*) rootdelay=\${word#*=} ;;
    ro | rw) rootmode=$word ;;
    init=*) init=\${word#*=} ;;
  esac
done
export TERM
load() { modprobe -a -q "$@" 2>/dev/null; }
read -r release </proc/sys/kernel/osrelease
# The kernel hashes each module to verify its signature: with the processor's instructions for that a third as many are run.
load sha256_ssse3
if [ -n "$modules" ]; then
  IFS=,
  load $modules
  unset IFS
fi
set +f
# What the machine has asks for its drivers by name; a virtio device only shows once its transport is driven, a disk once its controller is.
drive() {
  [ -e "/usr/lib/modules/$release/modules.alias" ] || return
  for bus in pci acpi virtio xen scsi; do
    # Not everything on a bus has one.
    aliases=
    for file in /sys/bus/$bus/devices/*/modalias; do
      [ -r "$file" ] || continue
      read -r alias <"$file"
      aliases="$aliases $alias"
    done
    [ -z "$aliases" ] || load $aliases
  done
}
drive

# The port of the host's that the agent serves. Its name comes a moment after its device.
agent_port() {
  tries=0
  while [ $tries -lt 200 ]; do
    for port in /sys/class/virtio-ports/*; do
      [ -r "$port/name" ] && read -r name <"$port/name" && [ "$name" = ${AGENT_PORT} ] || continue
      echo "/dev/\${port##*/}"
      return
    done
    tries=$((tries + 1))
    usleep 10000
  done
}

# An address for the first card. A system on a disk sees to that itself; a command in it has ours.
connect() {
  for card in /sys/class/net/e*; do
    ifconfig "\${card##*/}" up 2>/dev/null && udhcpc -i "\${card##*/}" -n -q -f -t 5 -T 1 -s /${LEASE_SCRIPT_PATH} >/dev/null 2>&1
    return
  done
}
[ "$network" != dhcp ] || [ -n "$root" -a -z "$command" ] || connect

# A disk of its own: its system takes over, or the command runs in it.
device() {
  case $root in
    UUID=* | LABEL=*) findfs "$root" 2>/dev/null ;;
    *) [ -b "$root" ] && echo "$root" ;;
  esac
}
failed() {
  echo "nonroot: $1" >/dev/console
  [ -n "$marks" ] || setsid cttyhack sh -l
  poweroff -f
}
if [ -n "$root" ]; then
  tries=0
  until disk=$(device); do
    # Disks are probed behind our back. Controllers that came late have further devices.
    [ $tries -lt $((rootdelay * 10)) ] || failed "there is no $root here; /proc/partitions: $(awk 'NR > 2 { printf " %s", $4 }' /proc/partitions)"
    tries=$((tries + 1))
    usleep 100000
    drive
  done
  # A system makes its file system writable itself, once it has checked it.
  [ -n "$command" ] && rootmode=rw
  mkdir -p /disk
  # Of its own accord mount tries only what the kernel has already.
  load "\${rootfstype:-ext4}"
  mount \${rootfstype:+-t "$rootfstype"} -o "$rootmode\${rootflags:+,$rootflags}" "$disk" /disk || failed "cannot mount $disk"
  if [ -z "$command" ]; then
    [ -x "/disk$init" ] || [ -L "/disk$init" ] || failed "$disk has no $init"
    umount /dev/pts /dev/shm /tmp
    [ -z "$agent" ] || port=$(agent_port)
    [ -z "$port" ] || cp /${AGENT_PATH} /run/nonroot-agent
    for folder in dev proc sys run; do mount --move /$folder /disk/$folder || failed "$disk has no /$folder"; done
    if [ -n "$port" ]; then
      chroot /disk /run/nonroot-agent "$port" </disk/dev/null >/disk/dev/null 2>&1 &
      # The programs that are here are about to go: not before it runs.
      tries=0
      until case $(readlink /disk/proc/$!/exe) in */nonroot-agent) ;; *) [ $tries -ge 200 ] ;; esac; do
        tries=$((tries + 1))
        usleep 10000
      done
    fi
    exec switch_root /disk "$init"
    failed "cannot start $init"
  fi
  for folder in dev proc sys run tmp; do mount --bind /$folder /disk/$folder 2>/dev/null; done
  [ -d /disk/dev/pts ] && mount --bind /dev/pts /disk/dev/pts
  [ -f /etc/resolv.conf -a -f /disk/etc/resolv.conf ] && mount --bind /etc/resolv.conf /disk/etc/resolv.conf
fi

# The machine's power button ends the guest, as it ends one with an init that supervises.
watch_button() {
  load button evdev
  for event in /sys/class/input/event*; do
    read -r name 2>/dev/null <$event/device/name
    [ "$name" = 'Power Button' ] || continue
    dd if=/dev/input/\${event##*/} of=/dev/null bs=24 count=1 2>/dev/null && poweroff -f &
  done
}

[ -n "$rows" ] && stty rows "$rows" 2>/dev/null
[ -n "$columns" ] && stty cols "$columns" 2>/dev/null
cd /root

# The command ended with this status: the disk is left as it should be, and the machine told.
finish() {
  status=$1
  if [ -n "$root" ]; then
    umount /disk/etc/resolv.conf /disk/dev/pts /disk/dev /disk/proc /disk/sys /disk/run /disk/tmp 2>/dev/null
    umount /disk 2>/dev/null || mount -o remount,ro /disk 2>/dev/null
  fi
  [ -n "$marks" ] && printf '\\033_nonroot:status=%d\\033\\\\' $status
  /${EXIT_PROGRAM_PATH} $status 2>/dev/null
  # Still here: no device took the status.
  [ -n "$marks" ] || printf '\\r\\nnonroot: exit status %d\\r\\n' $status
}
# Beside a shell. An agent that ends is started again.
serve() {
  port=$(agent_port)
  while [ -n "$port" ]; do
    /${AGENT_PATH} "$port"
    sleep 1
  done
}
[ -z "$agent" -o -z "$command" ] || port=$(agent_port)

if [ -n "$command" -a -n "$port" ]; then
  echo 1 >/proc/sys/kernel/printk
  if [ -n "$root" ]; then /${AGENT_PATH} "$port" chroot /disk /bin/sh -c 'cd; exec "$@"' sh
  else /${AGENT_PATH} "$port"; fi
  finish $?
elif [ -n "$command" ]; then
  echo 1 >/proc/sys/kernel/printk
  # A parameter has it in base64; the agent is told it by the host.
  case $command in
    /${COMMAND_PATH}) command=$(cat "$command") ;;
    *) command=$(base64 -d <<end
$command
end
) ;;
  esac
  stty -onlcr -echo 2>/dev/null
  [ -n "$marks" ] && printf '\\033_nonroot:begin\\033\\\\'
  if [ -n "$root" ]; then setsid cttyhack chroot /disk /bin/sh -c "cd; $command"
  else setsid cttyhack sh -c "$command"; fi
  finish $?
else
  echo
  echo "nonroot: Linux $release, $(nproc) CPU, $(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB. poweroff ends it."
  echo
  watch_button
  [ -z "$agent" ] || serve </dev/null >/dev/null 2>&1 &
  [ -n "$marks" ] && printf '\\033_nonroot:begin\\033\\\\'
  setsid cttyhack sh -l
fi
poweroff -f
# The kernel could not power off: stop the machine the other way rather than panic for want of an init.
reboot -f
`

/** \`poweroff\`, \`reboot\` and \`halt\` speak to an init that supervises; ours does not, so the shell's words go to the kernel. */
export const PROFILE = `PS1='\\u@\\h:\\w\\$ '
for verb in poweroff reboot halt; do
  eval "$verb() { busybox $verb -f \\"\\$@\\"; }"
done
unset verb
`

/**
 * For Debian's kernel on a serial console. Two thirds of the instructions from power-on to init are self-tests of every cipher:
 * 0.9 of 1.3 billion. Nothing else on the command line comes near that.
 */
export const DEBIAN_PARAMETERS: readonly string[] = ['console=ttyS0', 'cryptomgr.notests']

export interface GuestParameters {
  /** Program and arguments, run without further expansion. */
  readonly command?: readonly string[]
  /** Frame the command's output on the console with begin and status marks (README.md, "Marks"). */
  readonly marks?: boolean
  /** Look for the port of the host's agent and, where there is one, have the agent run what the host asks for: in place of the command, or beside the shell or the disk's system. */
  readonly agent?: boolean
  /** How the first network card gets an address. */
  readonly network?: 'dhcp'
  readonly modules?: readonly string[]
  readonly rows?: number
  readonly columns?: number
  readonly term?: string
}

/** Quotes any text as one word for sh. */
const shellQuote = (word: string): string =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`

export const shellCommand = (words: readonly string[]): string => words.map(shellQuote).join(' ')

const LONGEST_PARAMETER = 1024 // of Linux's 2048 for the whole command line on x86; what is longer goes into an overlay

const base64 = (text: string): string => btoa(String.fromCharCode(...encodeText(text)))

/**
 * Kernel parameters for the init script, and, where the command is too long for them, an archive to append to the initramfs.
 */
export function guestParameters(wanted: GuestParameters): { parameters: string[]; overlay: Uint8Array | undefined } {
  const parameters: string[] = []
  let overlay: Uint8Array | undefined
  if (wanted.command !== undefined) {
    const command = shellCommand(wanted.command)
    if (command.length * 1.5 < LONGEST_PARAMETER) parameters.push(`nonroot.command=${base64(command)}`)
    else overlay = fileOverlay({ [COMMAND_PATH]: command })
  }
  if (wanted.marks === true) parameters.push('nonroot.marks=1')
  if (wanted.agent === true) parameters.push('nonroot.agent=1')
  if (wanted.network) parameters.push(`nonroot.network=${wanted.network}`)
  if (wanted.modules?.length) parameters.push(`nonroot.modules=${wanted.modules.join(',')}`)
  if (wanted.rows !== undefined) parameters.push(`nonroot.rows=${wanted.rows}`)
  if (wanted.columns !== undefined) parameters.push(`nonroot.columns=${wanted.columns}`)
  if (wanted.term !== undefined && /^[\w.+-]+$/.test(wanted.term)) parameters.push(`nonroot.term=${wanted.term}`)
  return { parameters, overlay }
}

/** An archive of a few files, to be appended to an initramfs: Linux unpacks one after the other, the later wins. */
export function fileOverlay(files: Readonly<Record<string, string | Uint8Array>>, mode = 0o755): Uint8Array {
  const nodes = new Map<
    string,
    { kind: 'file'; mode: number; data: Uint8Array } | { kind: 'directory'; mode: number }
  >()
  for (const [path, content] of Object.entries(files)) {
    for (let slash = path.indexOf('/'); slash > 0; slash = path.indexOf('/', slash + 1)) {
      nodes.set(path.slice(0, slash), { kind: 'directory', mode: 0o755 })
    }
    nodes.set(path, { kind: 'file', mode, data: typeof content === 'string' ? encodeText(content) : content })
  }
  return writeCpio({ entries: () => [...nodes].sort(([a], [b]) => byCodeUnits(a, b)) })
}

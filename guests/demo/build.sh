#!/bin/sh
# Builds demo.elf, the same bytes every time with the same compiler (checked in: gcc 12.2, binutils 2.40). 64-bit code in an ELF32,
# because Multiboot 1 wants one.
set -e
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags="-m64 -std=c11 -Os -ffreestanding -fno-pic -no-pie -mno-red-zone -mgeneral-regs-only -mcmodel=small -fno-stack-protector
  -fcf-protection=none -fno-asynchronous-unwind-tables -fno-ident -Wall -Wextra -Werror"
for source in entry.S console.c machine.c paging.c timers.c exits.c main.c; do
  gcc $flags -c -o "$work/$source.o" "$source"
done
ld -m elf_x86_64 -z max-page-size=4096 -z noexecstack --build-id=none -T link.ld -s -o "$work/demo64.elf" \
  "$work/entry.S.o" "$work/console.c.o" "$work/machine.c.o" "$work/paging.c.o" "$work/timers.c.o" "$work/exits.c.o" "$work/main.c.o"
objcopy -O elf32-i386 "$work/demo64.elf" demo.elf
chmod 644 demo.elf
cat > ../../packages/image/src/demo-guest.ts <<EOF
/** The demo guest's image, for whoever has no other: a Multiboot 1 and PVH kernel. Made by guests/demo/build.sh: do not edit. */
const DEMO_GUEST_BASE64 =
  '$(base64 -w0 demo.elf)'

export const demoGuest = (): Uint8Array => Uint8Array.from(atob(DEMO_GUEST_BASE64), (character) => character.charCodeAt(0))
EOF

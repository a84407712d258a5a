#!/bin/sh
# Builds pc.elf; the same bytes every time. Needs gcc and binutils.
set -e
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags="-m32 -O1 -ffreestanding -fno-pie -fno-stack-protector -mgeneral-regs-only -fcf-protection=none -fno-asynchronous-unwind-tables"
gcc $flags -Wall -Wno-array-bounds -c pc.c -o "$work/pc.o"
gcc -m32 -c entry.S -o "$work/entry.o"
ld -m elf_i386 --no-warn-rwx-segments -T link.ld -N --build-id=none -s -o pc.elf "$work/entry.o" "$work/pc.o"

#!/bin/sh
# Builds hostile.elf, the same bytes every time with the same compiler (checked in: gcc 12.2, binutils 2.40). Entry, console and layout are the demo guest's.
set -e
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags="-m64 -std=c11 -Os -ffreestanding -fno-pic -no-pie -mno-red-zone -mgeneral-regs-only -mcmodel=small -fno-stack-protector
  -fcf-protection=none -fno-asynchronous-unwind-tables -fno-ident -Wall -Wextra -Werror"
for source in ../demo/entry.S ../demo/console.c hostile.c; do
  gcc $flags -c -o "$work/$(basename "$source").o" "$source"
done
ld -m elf_x86_64 -z max-page-size=4096 -z noexecstack --build-id=none -T ../demo/link.ld -s -o "$work/hostile64.elf" "$work"/*.o
objcopy -O elf32-i386 "$work/hostile64.elf" hostile.elf
chmod 644 hostile.elf

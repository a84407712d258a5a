#!/bin/sh
# Builds hostile.elf, the same bytes every time. Needs gcc and GNU ld.
set -e
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gcc -O1 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pic -mcmodel=kernel -mno-red-zone -mgeneral-regs-only -fcf-protection=none -c -o "$work/hostile.o" hostile.c
gcc -c -o "$work/entry.o" entry.S
ld -m elf_x86_64 -z max-page-size=4096 -z noexecstack --no-warn-rwx-segments --build-id=none -T link.ld -s -o hostile.elf "$work/entry.o" "$work/hostile.o"

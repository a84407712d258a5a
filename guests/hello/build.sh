#!/bin/sh
# Builds hello.elf, the same bytes every time. Needs nasm and GNU ld.
set -e
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nasm -f elf32 -o "$work/hello.o" hello.asm
ld -m elf_i386 -z max-page-size=4096 --build-id=none -T link.ld -s -o hello.elf "$work/hello.o"

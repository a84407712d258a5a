#!/bin/sh
# Builds hello.elf, the same bytes every time. Needs gcc and GNU ld.
set -e
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gcc -c -o "$work/hello.o" hello.S
ld -m elf_x86_64 -z max-page-size=4096 --no-warn-rwx-segments --build-id=none -T link.ld -s -o hello.elf "$work/hello.o"

#!/bin/sh
# Builds the program and writes it into the image package as text. The same bytes every time. Needs nasm.
set -e
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nasm -f bin -o "$work/exit" exit.asm
cat > ../../packages/image/src/exit-program.ts <<EOF
/** The program that reports a status through isa-debug-exit, as bytes. Made by guests/exit/build.sh: do not edit. */
export const EXIT_PROGRAM_BASE64 =
  '$(base64 -w0 "$work/exit")'
EOF

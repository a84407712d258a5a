#!/bin/sh
# Builds the agent and writes it into the image package as text. The same bytes every time. Needs gcc and binutils.
set -e
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gcc -Os -std=gnu11 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pie -fno-strict-aliasing \
  -mno-sse -mgeneral-regs-only -fcf-protection=none -fno-tree-loop-distribute-patterns -fno-ident -nostdlib -static -no-pie \
  -Wl,-z,noseparate-code,-z,norelro,--build-id=none,-z,noexecstack -o "$work/agent" agent.c
strip --strip-section-headers "$work/agent" 2>/dev/null || strip "$work/agent"
cat > ../../packages/image/src/agent/program.ts <<END
/** The agent that runs commands in a guest, as bytes. Made by guests/agent/build.sh: do not edit. */
export const AGENT_PROGRAM_BASE64 =
  '$(base64 -w0 "$work/agent")'
END

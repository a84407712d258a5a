#!/bin/sh
# nonroot under Node's permission model (Node 24): it reads its own tree and FOLDER, writes FOLDER, and starts no programs.
#
#   permission.sh FOLDER run --kernel FOLDER/vmlinux ...
#
# Sockets are not restricted, and a bug of V8's is not held by it: bubblewrap.sh is the stronger way. NONROOT_JS: nonroot's bin/nonroot.js.
set -eu
folder=$(realpath "$1")
shift
program=$(realpath "${NONROOT_JS:-$(command -v nonroot)}")
tree=${NONROOT_TREE:-${program%/nonroot/bin/*}}
export NONROOT_CACHE="$folder/cache" NONROOT_RUNTIME="$folder/run"
exec "${NODE:-node}" --permission --allow-worker --disable-warning=SecurityWarning \
  --allow-fs-read="$tree" --allow-fs-read="$folder" --allow-fs-write="$folder" \
  "$program" "$@"

#!/bin/sh
# nonroot in namespaces of its own, by bubblewrap: the system is read-only, home folders and other processes are not there, there is no network, and only
# FOLDER can be written.
#
#   NONROOT_TREE=/usr/lib/node_modules bubblewrap.sh FOLDER run --kernel FOLDER/vmlinux ...
#
# NONROOT_TREE: the folder that Node and nonroot are installed below, where that is not /usr. NETWORK=1: the guest's user-mode network has the host's.
set -eu
folder=$(realpath "$1")
shift
tree=${NONROOT_TREE:-/usr}
exec bwrap \
  --unshare-all ${NETWORK:+--share-net} --die-with-parent --cap-drop ALL \
  --ro-bind / / --dev /dev --proc /proc \
  --tmpfs /home --tmpfs /root --tmpfs /run --tmpfs /tmp --tmpfs /var \
  --ro-bind "$tree" "$tree" --bind "$folder" "$folder" --chdir "$folder" \
  --setenv NONROOT_CACHE "$folder/cache" --setenv NONROOT_RUNTIME "$folder/run" \
  ${NONROOT:-nonroot} "$@"

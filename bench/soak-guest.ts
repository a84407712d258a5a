/** The guest of the soak: stress-ng, gzip, guestbench and shell loops, going round for ever. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { GUESTBENCH_SOURCE } from './guest.ts'
import { INIT_START, packagedGuest, type Guest } from './packaged-guest.ts'
import { textOf } from './programs.ts'

// Everything that can be checked is: stress-ng by --verify, gzip and files by comparing, guestbench by its checksums.
const INIT = `${INIT_START}
mkdir -p /tmp/stress
cd /tmp/stress
round=0
bad() { echo "SOAK FAILED in round $round: $1"; }
while :; do
  round=$((round + 1))
  echo "SOAK round $round"
  stress-ng --verify --oom-avoid --temp-path /tmp/stress --timeout 20s --metrics-brief \\
    --cpu 1 --vm 1 --vm-bytes 48M --fork 1 --switch 1 --pipe 1 --mmap 1 --mmap-bytes 24M --sigsegv 1 --memcpy 1 --qsort 1 \\
    > /tmp/stress.log 2>&1 || { bad stress-ng; cat /tmp/stress.log; }
  i=0
  while [ $i -lt 300 ]; do /bin/true || bad fork; i=$((i + 1)); done
  guestbench smc pagefault fork call indirect > /tmp/bench.log || bad guestbench
  sed -n 's/^BENCH \\([a-z0-9]*\\) end/\\1/p' /tmp/bench.log > /tmp/bench.now
  [ -e /tmp/bench.first ] || cp /tmp/bench.now /tmp/bench.first
  cmp -s /tmp/bench.now /tmp/bench.first || bad "other checksums than in the first round"
  for level in 1 6; do gzip -$level -c /data/text > /tmp/text.gz; gzip -dc /tmp/text.gz | cmp - /data/text || bad gzip; done
  for i in 1 2 3 4; do cat /data/text > /tmp/copy$i; done
  for i in 1 2 3 4; do cmp /tmp/copy$i /data/text || bad "page cache"; rm /tmp/copy$i; done
  sync
  echo 3 > /proc/sys/vm/drop_caches
done
`
const LEFT_OUT = [/\/share\/X11\//]

export const soakGuest = (say: (text: string) => void): Promise<Guest> =>
  packagedGuest(
    {
      name: 'soak',
      packages: ['dash', 'coreutils', 'gzip', 'diffutils', 'stress-ng'],
      leftOut: LEFT_OUT,
      init: INIT,
      recipe: [textOf(9), readFileSync(GUESTBENCH_SOURCE, 'latin1')],
      async fill(tree) {
        const folder = await mkdtemp(join(tmpdir(), 'nonroot-soak-'))
        try {
          const program = join(folder, 'guestbench')
          execFileSync('gcc', ['-O2', '-static', '-o', program, GUESTBENCH_SOURCE], {
            stdio: ['ignore', 'ignore', 'inherit'],
          })
          tree.file('usr/bin/guestbench', new Uint8Array(await readFile(program)), 0o755)
        } finally {
          await rm(folder, { recursive: true })
        }
        tree.file('data/text', textOf(60_000))
      },
    },
    say,
  )

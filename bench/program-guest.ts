/** The guest of the real programs: their packages, the inputs, and an /init that runs them one after the other. */
import { gzipSync } from 'node:zlib'
import { fileOfPackage, INIT_START, packagedGuest, type Guest } from './packaged-guest.ts'
import { binaryOf, LEFT_OUT, PACKAGES, PROGRAMS, PYTHON_WORK, SOURCE_FILE, SOURCE_PACKAGE, textOf } from './programs.ts'

// The kernel hands `tests=a,b` of its command line to init as an environment variable.
const INIT = `${INIT_START}
for name in $(cat /programs/list); do
  case ",\${tests:-$name}," in *,$name,*) ;; *) continue ;; esac
  rm -f /tmp/out
  [ -e /programs/$name.prepare ] && dash /programs/$name.prepare
  echo "BENCH $name begin"
  dash /programs/$name
  status=$?
  echo "BENCH $name end"
  if [ $status = 0 ]; then sum=$(sha256sum < /tmp/out); else sum=failed-with-status-$status; fi
  echo "BENCH $name check \${sum%% *}"
  rm -f /tmp/part
done
echo "BENCH all done"
poweroff -f
`
const TEXT_LINES = 120_000
const BINARY_BYTES = 16 << 20

export const programGuest = (say: (text: string) => void): Promise<Guest> =>
  packagedGuest(
    {
      name: 'programs',
      packages: PACKAGES,
      leftOut: LEFT_OUT,
      init: INIT,
      recipe: [PROGRAMS, PYTHON_WORK, TEXT_LINES, BINARY_BYTES, textOf(9)],
      async fill(tree) {
        const text = textOf(TEXT_LINES)
        tree.file('data/text', text).file('data/text.gz', new Uint8Array(gzipSync(text)))
        tree.file('data/binary', binaryOf(BINARY_BYTES)).file('data/work.py', PYTHON_WORK)
        tree.file('data/stb_sprintf.h', await fileOfPackage(SOURCE_PACKAGE, SOURCE_FILE))
        tree.file('data/source.c', '#define STB_SPRINTF_IMPLEMENTATION\n#include "stb_sprintf.h"\n')
        tree.file('programs/list', PROGRAMS.map(({ name }) => `${name}\n`).join(''))
        for (const { name, run, prepare } of PROGRAMS) {
          tree.file(`programs/${name}`, `${run}\n`)
          if (prepare) tree.file(`programs/${name}.prepare`, `${prepare}\n`)
        }
      },
    },
    say,
  )

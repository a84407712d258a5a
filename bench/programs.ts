/**
 * The real programs of the benchmark: Debian's own binaries on fixed inputs, some seconds each under an emulator. Facts only: how they
 * get into a guest is guest.ts's business, how long they take is the machine's.
 */
export interface Program {
  readonly name: string
  /** Shell lines that are timed. What they leave in /tmp/out is what machines must agree on. */
  readonly run: string
  /** Shell lines that come before and are not timed. */
  readonly prepare?: string
}

/** Debian packages, with what they depend on. */
export const PACKAGES = [
  'dash',
  'coreutils',
  'gzip',
  'xz-utils',
  'mawk',
  'sqlite3',
  'python3-minimal',
  'gcc',
  'openssl',
] as const

/** The C file of `gcc`: 1,900 lines that need no C library. Its package's headers are not part of an image. */
export const SOURCE_PACKAGE = 'libstb-dev'
export const SOURCE_FILE = 'usr/include/stb/stb_sprintf.h'

/** Big, and used by none of the programs: link-time optimisation, and the sanitizers' libraries. */
export const LEFT_OUT = [
  /\/lto1$/,
  /\/lto-wrapper$/,
  /\/lib[a-z]*san\.so/,
  /\/bin\/(x86_64-linux-gnu-)?(gold|ld\.gold|dwp|gp-.*|gprofng)$/,
]

const KEYS = '-K 000102030405060708090a0b0c0d0e0f -iv 0f0e0d0c0b0a09080706050403020100'
/** 2^2203 - 1, a Mersenne prime: each round of its Miller-Rabin test is the modular power that RSA and Diffie-Hellman are made of. */
const PRIME = '7' + 'f'.repeat(550)

export const PROGRAMS: readonly Program[] = [
  { name: 'sha256sum', run: 'sha256sum /data/binary /data/binary /data/binary /data/binary /data/text > /tmp/out' },
  { name: 'gzip', run: 'gzip -6 -n -c /data/text > /tmp/out' },
  { name: 'gunzip', run: 'for i in 1 2 3 4; do gzip -d -c /data/text.gz; done > /tmp/out' },
  { name: 'xz', prepare: 'head -c 500000 /data/text > /tmp/part', run: 'xz -6 -T1 -c /tmp/part > /tmp/out' },
  {
    name: 'unxz',
    prepare: 'head -c 2000000 /data/text | xz -0 -T1 -c > /tmp/part',
    run: 'for i in 1 2 3 4 5 6; do xz -d -T1 -c /tmp/part; done > /tmp/out',
  },
  {
    name: 'sort',
    run: 'LC_ALL=C sort --parallel=1 -S 64M /data/text > /tmp/out; LC_ALL=C sort --parallel=1 -S 64M -k3,3n -k1,1 /data/text >> /tmp/out',
  },
  {
    name: 'awk',
    run: `mawk '{ for (i = 1; i <= NF; i++) count[$i]++; sum += $3; gsub(/[aeiou]+/, "_"); long += length($0) }
END { for (word in count) n += count[word] * length(word); print NR, sum, long, n }' /data/text > /tmp/out`,
  },
  {
    name: 'sqlite3',
    run: `sqlite3 :memory: > /tmp/out <<'SQL'
create table a (id integer primary key, k integer, name text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 60000)
insert into a select i, i * 7919 % 10007, 'name ' || (i * 31 % 4001) from n;
create index ak on a (k);
select k % 17, count(*), sum(id), min(name) from a group by 1 order by 1;
select count(*) from a x join a y on x.k = y.k where x.id < y.id and x.name < y.name;
update a set name = upper(name) where k % 3 = 0;
select name, count(*) c from a group by name order by c desc, name limit 20;
delete from a where name like '%9%';
select count(*), total(k) from a;
SQL`,
  },
  { name: 'python3', run: 'python3 -S /data/work.py > /tmp/out' },
  { name: 'gcc', run: 'gcc -O2 -ffreestanding -c /data/source.c -o /tmp/out' },
  { name: 'aes', run: `openssl enc -aes-128-cbc ${KEYS} -in /data/binary -out /tmp/out` },
  {
    name: 'chacha20',
    run: `for i in 1 2 3 4; do openssl enc -chacha20 -K ${'5a'.repeat(32)} -iv ${'a5'.repeat(16)} -in /data/binary; done > /tmp/out`,
  },
  { name: 'sha512', run: 'openssl dgst -sha512 /data/binary /data/binary /data/binary /data/text > /tmp/out' },
  { name: 'bignum', run: `openssl prime -checks 40 -hex ${PRIME} > /tmp/out` },
]

/** What python3 runs: dictionaries, strings, calls, objects, lists, floats, and long integers; only the language itself is imported. */
export const PYTHON_WORK = `
class Body:
    def __init__(self, x, v, m):
        self.x, self.v, self.m = x, v, m

def nbody(steps):
    bodies = [Body([i * 1.5, i * 0.5, -i * 0.25], [0.0, 0.1 * i, 0.01], 1.0 / (i + 1)) for i in range(5)]
    for _ in range(steps):
        for i, a in enumerate(bodies):
            for b in bodies[i + 1:]:
                d = [p - q for p, q in zip(a.x, b.x)]
                f = 0.01 / ((d[0] * d[0] + d[1] * d[1] + d[2] * d[2]) ** 1.5 + 0.001)
                for k in range(3):
                    a.v[k] -= d[k] * b.m * f
                    b.v[k] += d[k] * a.m * f
        for a in bodies:
            for k in range(3):
                a.x[k] += 0.01 * a.v[k]
    return ['%.12e' % x for a in bodies for x in a.x]

def words(path):
    count = {}
    with open(path) as file:
        for n, line in enumerate(file):
            if n == 20000: break
            for word in line.split():
                count[word] = count.get(word, 0) + 1
    return sorted(count.items(), key=lambda item: (-item[1], item[0]))[:10]

def queens(n, row=0, columns=0, up=0, down=0):
    if row == n: return 1
    found = 0
    free = ~(columns | up | down) & ((1 << n) - 1)
    while free:
        bit = free & -free
        free ^= bit
        found += queens(n, row + 1, columns | bit, (up | bit) << 1, (down | bit) >> 1)
    return found

def sieve(n):
    flags = bytearray([1]) * n
    for i in range(2, int(n ** 0.5) + 1):
        if flags[i]: flags[i * i::i] = bytes(len(range(i * i, n, i)))
    return sum(i for i in range(2, n) if flags[i])

def digits(n):
    a, b = 0, 1
    for _ in range(n): a, b = b, a + b
    return str(a)[:40]

print(nbody(1200))
print(words('/data/text'))
print(queens(8))
print(sieve(400000))
print(digits(6000))
print(hash(tuple(sorted({i * i % 7919: str(i) for i in range(30000)}))))
`

/** Text of so many lines: words by a made-up vocabulary with few common ones, and numbers. The same every time. */
export function textOf(lines: number): string {
  const next = random(12345)
  const syllables = [
    'ka',
    'to',
    'mi',
    'ren',
    'sol',
    'va',
    'ple',
    'dor',
    'in',
    'ex',
    'tra',
    'lun',
    'be',
    'ost',
    'qui',
    'ar',
  ]
  const vocabulary = Array.from({ length: 4000 }, () =>
    Array.from({ length: 1 + (next() % 4) }, () => syllables[next() % 16]!).join(''),
  )
  const word = (): string => vocabulary[Math.floor(4000 * (next() / 2 ** 31) ** 3)]!
  const out: string[] = []
  for (let n = 0; n < lines; n++) {
    const rest = Array.from({ length: 3 + (next() % 9) }, word)
    out.push(`${word()} ${word()} ${next() % 100000} ${rest.join(' ')}\n`)
  }
  return out.join('')
}

/** Bytes that do not compress. */
export function binaryOf(length: number): Uint8Array<ArrayBuffer> {
  const next = random(54321)
  const words = new Uint32Array(length / 4)
  for (let i = 0; i < words.length; i++) words[i] = (next() << 1) ^ (next() >>> 7)
  return new Uint8Array(words.buffer)
}

/** 31 bits a call. (Lehmer's generator with Park and Miller's numbers) */
function random(seed: number): () => number {
  let state = seed
  return () => (state = Number((BigInt(state) * 48271n) % 2147483647n))
}

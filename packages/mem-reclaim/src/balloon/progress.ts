/** Waiting for a guest that does what it was asked for step by step. */

const POLL_MS = 10

/** Until nothing is left, or as long as less is left each `patienceMs`. Gives whether nothing is left. */
export async function madeProgress(left: () => number, patienceMs: number): Promise<boolean> {
  let [last, waitedMs] = [left(), 0]
  while (left() > 0 && waitedMs < patienceMs) {
    await new Promise((resolve) => void setTimeout(resolve, POLL_MS))
    waitedMs += POLL_MS
    if (left() < last) [last, waitedMs] = [left(), 0]
  }
  return left() <= 0
}

/** `KEY=VALUE`, as after `--set`, for one more item of a list. A list that is not there cannot grow. */
export const appended = (key: string, list: readonly unknown[], item: object): string =>
  list.length === 0 ? `${key}=${JSON.stringify([item])}` : `${key}.${list.length}=${JSON.stringify(item)}`

/** `KEY=VALUE`, as after `--set`, to append an item to an existing list. */
export const appended = (key: string, list: readonly unknown[], item: object): string =>
  list.length === 0 ? `${key}=${JSON.stringify([item])}` : `${key}.${list.length}=${JSON.stringify(item)}`

/**
 * Where events stay until they are acknowledged: `localStorage`, shared by all pages of an origin, or the page's memory where
 * there is none (blocked, full). What is stored is the truth: a page keeps no copy of what another page may have sent meanwhile.
 */
export interface Shelf {
  /** The ids on it. */
  ids(): string[];
  get(id: string): string | null | undefined;
  put(id: string, text: string): void;
  remove(id: string): void;
}

/** The shelf whose places begin with `prefix`. */
export function shelved(prefix: string): Shelf {
  const memory = new Map<string, string>();
  const stored = <T>(run: (storage: Storage) => T): T | undefined => {
    try {
      return run(localStorage);
    } catch {}
    return undefined;
  };
  return {
    ids: () =>
      [...(stored(Object.keys) ?? []), ...memory.keys()].filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length)),
    get: (id) => memory.get(prefix + id) ?? stored((storage) => storage.getItem(prefix + id)),
    put(id, text) {
      // What cannot be stored is kept here; what is stored is not.
      memory.set(prefix + id, text);
      stored((storage) => {
        storage.setItem(prefix + id, text);
        memory.delete(prefix + id);
      });
    },
    remove(id) {
      memory.delete(prefix + id);
      stored((storage) => storage.removeItem(prefix + id));
    },
  };
}

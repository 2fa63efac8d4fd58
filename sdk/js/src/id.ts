/** Ids of events: UUIDs of version 7 (RFC 9562, section 5.7), so that their order is the order in which they were made. */

/** The UUID of a moment (Unix ms) and 16 random bytes, of which 10 are used. */
export function uuidv7(now: number, random: Uint8Array): string {
  const time = Math.floor(now).toString(16).padStart(12, "0");
  const bytes = Array.from(random, (byte) => (byte + 256).toString(16).slice(1)).join("");
  const variant = "89ab"[parseInt(bytes.charAt(3), 16) & 3] + bytes.slice(4, 7);
  return [time.slice(0, 8), time.slice(8), "7" + bytes.slice(0, 3), variant, bytes.slice(8, 20)].join("-");
}

/** A new id. */
export function newId(): string {
  return uuidv7(Date.now(), crypto.getRandomValues(new Uint8Array(16)));
}

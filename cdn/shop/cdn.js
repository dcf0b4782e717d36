// What lies on the CDN: the manifest of a region, its shards and its search list, each checked against its SHA-256.

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value >>> 0;
});

export function crc32(text) {
  let sum = 0xffffffff;
  for (const byte of new TextEncoder().encode(text)) sum = TABLE[(sum ^ byte) & 0xff] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

export class Damaged extends Error {}

// False on an insecure origin: there a browser gives no way to compute a checksum.
export const canVerify = Boolean(globalThis.crypto?.subtle);

export class Cdn {
  #root;
  #held = new Map();

  constructor(root, region) {
    this.#root = `${root}/${encodeURIComponent(region)}`;
    this.manifest = null;
  }

  // Reads the manifest; true where the release is another one than before.
  async refresh() {
    const answer = await fetch(`${this.#root}/current.json`);
    if (answer.status === 404 || answer.status === 403) throw new Error("this region has no release yet");
    if (!answer.ok) throw new Error(`the CDN says ${answer.status}`);
    const next = await answer.json();
    const changed = this.manifest?.release !== next.release;
    if (changed) this.#held.clear();
    this.manifest = next;
    return changed;
  }

  shardOf(sku) {
    return this.shard(crc32(sku) % this.manifest.shard_count);
  }

  shard(number) {
    return this.#file(`${number}.json`, this.manifest.shards[number]);
  }

  search() {
    return this.#file("search.json", this.manifest.search);
  }

  #file(name, checksum) {
    const address = `${this.#root}/${encodeURIComponent(this.manifest.release)}/${name}`;
    if (!this.#held.has(address)) {
      const coming = read(address, checksum, "default").catch((fault) => {
        if (fault instanceof Damaged) return read(address, checksum, "reload");
        throw fault;
      });
      coming.catch(() => this.#held.delete(address));
      this.#held.set(address, coming);
    }
    return this.#held.get(address);
  }
}

async function read(address, checksum, cache) {
  const answer = await fetch(address, { cache });
  if (!answer.ok) throw new Error(`the CDN says ${answer.status} to ${address}`);
  const bytes = await answer.arrayBuffer();
  if (canVerify && (await sha256(bytes)) !== checksum) throw new Damaged(`${address} does not match its checksum`);
  return JSON.parse(new TextDecoder().decode(bytes));
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

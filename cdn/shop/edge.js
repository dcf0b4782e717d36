// What the edge of a region answers. An answer that doesn't come within a few seconds is an edge that is gone.

const PATIENCE_MS = 4000;
const LIMIT = 50;

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the edge says ${status}`);
    this.status = status;
  }
}

export class Edge {
  #root;

  constructor(address, region) {
    this.#root = `${address}/v1/${encodeURIComponent(region)}`;
  }

  // Priced bundles of `sku`. Without a cart it is a GET that the browser revalidates, so that no news costs no bytes.
  offers(sku, segment, cart) {
    if (cart.length > 0) return this.#post("/offers", { skus: [sku], cart, segment, limit: LIMIT });
    const asked = new URLSearchParams({ segment, limit: LIMIT });
    return this.#ask(`/bundles/${encodeURIComponent(sku)}?${asked}`, { cache: "no-cache" });
  }

  // Stock and prices of products; those that an address can't carry (a comma separates them) are left out.
  live(skus) {
    const named = skus.filter((sku) => !sku.includes(",")).slice(0, 100);
    return this.#ask(`/live?${new URLSearchParams({ skus: named.join(",") })}`, { cache: "no-store" });
  }

  verify(token) {
    return this.#post("/quotes/verify", { token });
  }

  explain(bundle, segment, anchor) {
    return this.#ask(`/bundles/${encodeURIComponent(bundle)}/explain?${new URLSearchParams({ segment, anchor })}`);
  }

  change(delta, key) {
    return this.#ask("/deltas", {
      method: "POST",
      headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/x-ndjson" },
      body: `${JSON.stringify(delta)}\n`,
    });
  }

  // What was shown or put in the cart. Nobody waits for it, and a shop without ears sells as well.
  tell(kind, release, facts) {
    const event = { kind, event_id: crypto.randomUUID(), at: new Date().toISOString(), release, ...facts };
    this.#post("/events", [event]).catch(() => {});
  }

  #post(path, body) {
    return this.#ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  }

  async #ask(path, options = {}) {
    const answer = await fetch(this.#root + path, { ...options, signal: AbortSignal.timeout(PATIENCE_MS) });
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Refused(answer.status, body);
    return body;
  }
}

// The shop floor: tell the edge that a stock or a price changed, as a till or a warehouse would.

import { byId, element, say } from "./element.js";
import { minorUnits, money, plainAmount, whole } from "./words.js";

const KEPT = "tandem-feed-key";

export class Floor {
  #known = new Map();
  #last = 0;
  #typed = new Set();

  constructor(shop) {
    this.shop = shop;
    this.panel = byId("floor");
    this.sku = byId("floor-sku");
    this.key = byId("floor-key");
    this.inputs = { stock: byId("floor-stock"), list_price: byId("floor-list"), sale_price: byId("floor-sale") };
    this.key.value = kept();
    this.key.addEventListener("change", () => keep(this.key.value));
    this.sku.addEventListener("change", () => this.#prefill());
    for (const [field, input] of Object.entries(this.inputs)) {
      input.addEventListener("input", () => this.#typed.add(field));
      input.addEventListener("blur", () => this.#fill(this.#known.get(this.sku.value)));
    }
    this.panel.addEventListener("toggle", () => shop.wake());
    byId("floor-form").addEventListener("submit", (event) => { event.preventDefault(); this.#submit(); });
    byId("floor-out").addEventListener("click", () => this.#send({ stock: 0 }));
    byId("floor-in").addEventListener("click", () => this.#send({ stock: (this.#known.get(this.sku.value)?.stock || 0) + 50 }));
  }

  set secret(key) {
    this.key.value = key;
    keep(key);
    this.panel.open = true;
  }

  // The products on show, the one looked at first.
  show(skus) {
    const now = Array.from(this.sku.options, (option) => option.value);
    if (now.join("\n") === skus.join("\n")) return;
    const chosen = this.sku.value;
    this.sku.replaceChildren(...skus.map((sku) => element("option", { value: sku }, this.shop.title(sku))));
    if (skus.includes(chosen)) this.sku.value = chosen;
    else this.#prefill();
  }

  learn(products) {
    const before = JSON.stringify(this.#known.get(this.sku.value));
    for (const product of products) this.#known.set(product.sku, product);
    const now = this.#known.get(this.sku.value);
    if (JSON.stringify(now) === before) return;
    this.#told(now);
    this.#fill(now);
  }

  #prefill() {
    const known = this.#known.get(this.sku.value);
    this.#typed.clear();
    for (const input of Object.values(this.inputs)) input.removeAttribute("aria-invalid");
    this.#fill(known);
    this.#told(known);
  }

  // What is known now, except where a person has typed something else, or is about to: the text must not move under the hand.
  #fill(known) {
    for (const [field, input] of Object.entries(this.inputs)) {
      if (this.#typed.has(field) || input === document.activeElement) continue;
      const value = known?.[field] ?? null;
      input.value = value === null ? "" : field === "stock" ? String(value) : plainAmount(value, this.shop.currency);
    }
  }

  #told(known) {
    const { currency } = this.shop;
    const parts = [
      known?.stock == null ? "stock not known" : `${whole.format(known.stock)} in stock`,
      known?.list_price == null ? "no price" : money(known.list_price, currency),
      known?.sale_price == null ? null : `on sale for ${money(known.sale_price, currency)}`,
    ];
    say(byId("floor-now"), `Now: ${parts.filter(Boolean).join(", ")}`);
  }

  #submit() {
    const change = {};
    for (const field of this.#typed) {
      const input = this.inputs[field];
      const text = input.value.trim();
      const value = text === "" ? null : field === "stock" ? wholeNumber(text) : minorUnits(text, this.shop.currency);
      input.setAttribute("aria-invalid", String(Number.isNaN(value)));
      if (Number.isNaN(value)) return this.#answer(`${input.parentElement.firstElementChild.textContent}: ${text} is not a number that fits`);
      if (value !== null || field === "sale_price") change[field] = value;
    }
    if (Object.keys(change).length === 0) return this.#answer("Type a stock or a price first");
    return this.#send(change);
  }

  async #send(change) {
    if (!this.key.value) {
      this.key.focus();
      return this.#answer("The key of the feed is needed; the demo prints a link that holds it");
    }
    const sku = this.sku.value;
    try {
      const news = await this.#tell(sku, change);
      this.#typed.clear();
      this.#answer(news ? `Told: ${this.shop.title(sku)}` : "Something newer is known already");
      this.shop.wake();
    } catch (fault) {
      this.#answer(`Not taken: ${fault.message}`);
    }
  }

  // Where orders are taken, stock is theirs: they hear of it, and tell the edge. False: nothing of it was new.
  async #tell(sku, { stock, ...prices }) {
    const { checkout, edge } = this.shop;
    const counted = stock !== undefined && checkout.isOpen;
    if (counted) await checkout.count(sku, stock, this.key.value);
    const rest = stock === undefined || counted ? prices : { stock, ...prices };
    if (Object.keys(rest).length === 0) return true;
    this.#last = Math.max(Date.now() * 1000, this.#last + 1);
    const answer = await edge.change({ sku, ...rest, sequence: this.#last, at: new Date().toISOString() }, this.key.value);
    return answer.applied > 0;
  }

  #answer(text) {
    say(byId("floor-answer"), text);
  }
}

const wholeNumber = (text) => (/^\d{1,9}$/.test(text) ? Number(text) : NaN);

function kept() {
  try {
    return sessionStorage.getItem(KEPT) || "";
  } catch {
    return "";
  }
}

function keep(key) {
  try {
    sessionStorage.setItem(KEPT, key);
  } catch {
    // Storage may be forbidden: the key then lasts as long as the page.
  }
}

// The cart: bundles as they were offered, each with its signed quote, kept in this browser per region.

import { byId, element, say } from "./element.js";
import { money, plainAmount } from "./words.js";

const KEY = (region) => `tandem-cart-${region}`;

export class Cart {
  #region = "";

  constructor(changed) {
    this.changed = changed;
    this.entries = [];
  }

  // `changed` is called when there is more or less in it.
  open(region) {
    this.#region = region;
    try {
      this.entries = JSON.parse(localStorage.getItem(KEY(region))) || [];
    } catch {
      this.entries = [];
    }
    this.#show();
  }

  // `seen`: under which anchor, segment and release it was offered.
  add(offer, titles, seen) {
    this.entries.push({ ...offer, titles, ...seen, verdict: "" });
    this.#keep();
  }

  // Puts a new offer in the place of an entry.
  renew(entry, offer) {
    this.entries = this.entries.map((each) => (each === entry ? { ...entry, ...offer, verdict: "" } : each));
    this.#keep();
  }

  clear() {
    this.entries = [];
    this.#keep();
  }

  remove(index) {
    this.entries.splice(index, 1);
    this.#keep();
  }

  // What the edge wants to know: units of each product.
  get lines() {
    const units = new Map();
    for (const { components } of this.entries) {
      for (const { sku, quantity } of components) units.set(sku, (units.get(sku) || 0) + quantity);
    }
    return Array.from(units, ([sku, quantity]) => ({ sku, quantity }));
  }

  get sums() {
    const sum = (field) => this.entries.reduce((total, entry) => total + entry[field], 0);
    return { alone: sum("list_total"), saving: sum("discount"), total: sum("offer_total") };
  }

  holds(components) {
    const units = new Map(this.lines.map(({ sku, quantity }) => [sku, quantity]));
    return components.length > 0 && components.every(({ sku, quantity }) => (units.get(sku) || 0) >= quantity);
  }

  // Asks the edge whether checkout may honour each quote.
  async verify(edge) {
    const entries = [...this.entries];
    for (const entry of entries) {
      if (!entry.quote) continue;
      try {
        const answer = await edge.verify(entry.quote.token);
        entry.verdict = answer.valid ? "valid" : answer.fault;
      } catch {
        entry.verdict = "unknown";
      }
    }
    showCart(this);
  }

  #keep() {
    try {
      localStorage.setItem(KEY(this.#region), JSON.stringify(this.entries));
    } catch {
      // Storage may be forbidden or full: the cart then lasts as long as the page.
    }
    this.#show();
  }

  #show() {
    showCart(this);
    this.changed();
  }
}

const VERDICTS = {
  "": "Checking the quote",
  valid: "Quote verified, checkout will charge this",
  expired: "Quote expired: remove it and add it again",
  unknown: "The quote can't be checked right now",
};

export function showCart(cart) {
  const { entries } = cart;
  say(byId("cart-count"), String(entries.length));
  byId("cart-link").setAttribute("aria-label", `Cart, ${entries.length} ${entries.length === 1 ? "bundle" : "bundles"}`);
  byId("cart-empty").hidden = entries.length > 0;
  byId("cart-sums").hidden = entries.length === 0;
  byId("cart-lines").replaceChildren(...entries.map((entry, index) => line(cart, entry, index)));
  if (entries.length === 0) return;
  const { alone, saving, total } = cart.sums;
  const { currency } = entries[0];
  say(byId("cart-alone"), money(alone, currency));
  say(byId("cart-saving"), money(saving, currency));
  say(byId("cart-total"), money(total, currency));
  byId("cart-saving").dataset.amount = plainAmount(saving, currency);
}

function line(cart, entry, index) {
  const names = entry.components.map(({ sku, quantity }) => (quantity > 1 ? `${quantity} × ` : "") + (entry.titles[sku] || sku));
  const refused = !["", "valid", "unknown"].includes(entry.verdict);
  return element(
    "li",
    { class: "cart-line" },
    element("span", { class: "cart-names" }, names.join(" + ")),
    element("span", { class: "cart-price" }, money(entry.offer_total, entry.currency)),
    element("span", { class: "verdict", "data-verdict": refused ? "refused" : entry.verdict || "asking" },
      VERDICTS[entry.verdict] ?? `Quote refused: ${entry.verdict.replaceAll("_", " ")}`),
    element("button", { type: "button", class: "quiet", "aria-label": `Remove ${names.join(" and ")}`, onclick: () => cart.remove(index) }, "Remove"),
  );
}

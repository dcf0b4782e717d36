// Buying what is in the cart: each bundle at the price of its quote, once, however often the button is pressed.

import { byId, say } from "./element.js";
import { announce } from "./voice.js";
import { money } from "./words.js";

const PATIENCE_MS = 10000;
const NEW_OFFER = ["urn:tandem:problem:quote-expired", "urn:tandem:problem:quote-used"];

export class Checkout {
  #address = "";
  #busy = false;
  #attempt = { tokens: "", key: "" };

  // `shop` gives cart, edge and titles.
  constructor(shop) {
    this.shop = shop;
    this.button = byId("buy");
    this.answer = byId("buy-answer");
    this.button.addEventListener("click", () => this.#buy());
  }

  // `address` of the orders' service; empty: this shop has none.
  open(address, region) {
    this.#address = address && `${address}/v1/${encodeURIComponent(region)}`;
    say(this.answer, "");
    this.show();
  }

  get isOpen() {
    return Boolean(this.#address);
  }

  show() {
    this.button.hidden = !this.isOpen || this.shop.cart.entries.length === 0;
  }

  // Says what is on the shelf, as somebody counted it.
  async count(sku, counted, key) {
    await this.#post("/stock", { movements: [{ sku, counted, reason: "count" }] }, crypto.randomUUID(), { Authorization: `Bearer ${key}` });
  }

  async #buy() {
    if (this.#busy) return;
    this.#wait(true);
    const entries = [...this.shop.cart.entries];
    try {
      const tokens = entries.map(({ quote }) => quote.token);
      const order = await this.#post("/checkout", { quotes: tokens }, this.#key(tokens.join()));
      this.#bought(order, entries);
    } catch (fault) {
      await this.#refused(fault, entries);
    } finally {
      this.#wait(false);
    }
  }

  // The same as long as the cart is the same: who presses twice, or after an answer was lost, buys once.
  #key(tokens) {
    if (this.#attempt.tokens !== tokens) this.#attempt = { tokens, key: crypto.randomUUID() };
    return this.#attempt.key;
  }

  #wait(busy) {
    this.#busy = busy;
    this.button.setAttribute("aria-disabled", String(busy));
    say(this.button, busy ? "Buying" : "Buy");
  }

  #bought(order, entries) {
    this.#attempt = { tokens: "", key: "" };
    for (const { id, anchor, release, offer_total } of entries) {
      if (release) this.shop.edge.tell("purchase", release, { bundle_id: id, anchor, offer_total });
    }
    this.shop.cart.clear();
    this.#say("done", `Bought for ${money(order.total, order.currency)}. Your order is ${order.order_id}.`);
    this.answer.focus();
  }

  async #refused(fault, entries) {
    const { problem } = fault;
    if (!problem) this.#say("failed", "Checkout can't be reached right now. Press Buy again: you won't pay twice.");
    else if (problem.type === "urn:tandem:problem:sold-out") this.#say("failed", `Sold out meanwhile: ${this.#lacking(problem, entries)}. Remove what can't be had.`);
    else if (NEW_OFFER.includes(problem.type)) await this.#renew(problem, entries);
    else this.#say("failed", `Not bought: ${problem.detail}`);
    this.shop.wake();
  }

  #lacking({ errors = [] }, entries) {
    const titles = Object.assign({}, ...entries.map((entry) => entry.titles));
    return errors.map(({ field, detail }) => `${titles[field] || this.shop.title(field)} (${detail})`).join(", ");
  }

  // New offers for quotes that don't hold any more; nothing is bought at another price than the shopper has seen.
  async #renew({ errors = [] }, entries) {
    const named = new Set(errors.map(({ field }) => Number(/\d+/.exec(field))));
    const old = entries.filter(({ quote }, index) => named.has(index) || Date.parse(quote.expires_at) <= Date.now());
    const news = [];
    for (const entry of old) news.push(await this.#renewed(entry));
    this.#say("failed", `${news.join(" ")} Look, then press Buy again.`);
  }

  async #renewed(entry) {
    const names = entry.components.map(({ sku }) => entry.titles[sku] || sku).join(" and ");
    try {
      const { bundles, release } = await this.shop.edge.offers(entry.anchor, entry.segment, []);
      const offer = bundles.find(({ id }) => id === entry.id);
      if (!offer) return `${names} can't be had any more: remove it.`;
      this.shop.cart.renew(entry, { ...offer, release });
      const same = offer.offer_total === entry.offer_total;
      return `The offer of ${names} had run out. It costs ${money(offer.offer_total, offer.currency)} now${same ? ", as before" : ` instead of ${money(entry.offer_total, entry.currency)}`}.`;
    } catch {
      return `The offer of ${names} has run out, and no new one can be had right now.`;
    }
  }

  #say(state, text) {
    this.answer.dataset.state = state;
    say(this.answer, text);
    announce(text);
  }

  async #post(path, body, key, headers = {}) {
    const answer = await fetch(this.#address + path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": key, ...headers },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const told = await answer.json();
    if (answer.ok) return told;
    throw Object.assign(new Error(told.detail || told.title), { problem: answer.status < 500 && told });
  }
}

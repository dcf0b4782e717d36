// A bundle as a card: what is in it comes from the CDN, what it costs now from the edge.

import { element, portrait, say } from "./element.js";
import { LEVELS, money, share, sold, together } from "./words.js";

export class Card {
  #told = "";

  // `shop` gives title and facts of a product, adds to the cart and explains.
  constructor(listed, bundle, shop) {
    Object.assign(this, { listed, bundle, shop, offer: null });
    this.parts = element("ul", { class: "parts" });
    this.list = element("s", { class: "list-total" });
    this.total = element("strong", { class: "offer-total" });
    this.saving = element("span", { class: "you-save" });
    this.stock = element("p", { class: "sellable" });
    this.add = element("button", { type: "button", class: "primary", onclick: () => shop.add(this) }, "Add bundle");
    this.why = element("button", { type: "button", class: "quiet", "aria-expanded": "false", onclick: () => this.#explain() }, "Why?");
    this.reasons = element("div", { class: "reasons", hidden: true });
    this.node = element(
      "li",
      { class: "bundle", "data-bundle": listed.id, "data-state": "waiting" },
      this.parts,
      element("div", { class: "evidence" },
        element("p", {}, together(bundle.evidence)),
        element("p", { class: "level", "data-level": listed.matched }, [LEVELS[listed.matched] || "", share(listed.confidence)].filter(Boolean).join(" · "))),
      element("div", { class: "deal" },
        element("div", { class: "prices" },
          element("span", { class: "sr" }, "Singly "), this.list, element("span", { class: "sr" }, "together "), this.total, this.saving),
        this.stock,
        element("div", { class: "buttons" }, this.add, this.why)),
      this.reasons,
    );
    this.#fill(bundle.components.map((part) => ({ ...part, unit_price: null, substituted_for: null })));
    this.show("waiting", null);
  }

  get names() {
    return (this.offer || this.bundle).components.map(({ sku }) => this.shop.title(sku)).join(" and ");
  }

  // state: waiting, live, gone (can't be sold now), held (in the cart), silent (no live prices). Gives what changed, in words.
  show(state, offer) {
    const told = JSON.stringify([state, offer && { ...offer, quote: null }]);
    const before = this.offer;
    const was = this.node.dataset.state;
    this.offer = offer;
    if (told === this.#told) return "";
    this.#told = told;
    this.node.dataset.state = state;
    const components = offer ? offer.components : this.bundle.components.map((part) => ({ ...part, unit_price: null, substituted_for: null }));
    this.#fill(components, before?.components);
    this.#price(state, offer, before);
    return this.#news(state, was, offer, before);
  }

  #fill(components, before = []) {
    const { currency } = this.offer || {};
    const rows = components.map((part, index) => {
      const instead = part.substituted_for && part.substituted_for !== part.sku;
      const changed = before[index] && before[index].unit_price !== part.unit_price;
      return element(
        "li",
        { class: "part", "data-sku": part.sku },
        portrait(this.shop.product(part.sku)),
        element("span", { class: "part-title" }, this.shop.title(part.sku)),
        instead ? element("span", { class: "instead" }, `instead of ${this.shop.title(part.substituted_for)}`) : null,
        element("span", { class: "part-facts" },
          element("span", { class: "quantity" }, part.unit_price === null ? `${part.quantity} piece${part.quantity > 1 ? "s" : ""}` : `${part.quantity} × `),
          element("span", { class: changed ? "each changed" : "each" }, part.unit_price === null ? "" : money(part.unit_price, currency) + (part.quantity > 1 ? " each" : ""))),
      );
    });
    this.parts.replaceChildren(...rows);
  }

  #price(state, offer, before) {
    const told = Boolean(offer);
    say(this.list, told && offer.discount > 0 ? money(offer.list_total, offer.currency) : "");
    say(this.total, told ? money(offer.offer_total, offer.currency) : "");
    say(this.saving, told && offer.discount > 0 ? `You save ${money(offer.discount, offer.currency)}` : "");
    this.list.previousElementSibling.hidden = !this.list.textContent;
    say(this.stock, told ? sold(offer.sellable) : STATES[state]);
    this.stock.dataset.few = String(told && offer.sellable < 6);
    this.add.disabled = !told || offer.sellable < 1;
    this.add.setAttribute("aria-label", `Add bundle: ${this.names}`);
    this.why.setAttribute("aria-label", `Why ${this.names}?`);
    this.why.hidden = state === "silent" || state === "waiting";
    if (told && before && before.offer_total !== offer.offer_total) flash(this.total);
    if (told && before && before.sellable !== offer.sellable) flash(this.stock);
  }

  #news(state, was, offer, before) {
    if (was === "waiting" || was === "silent") return "";
    if (state === "gone" && was === "live") return `${this.names}: sold out`;
    if (!offer) return "";
    if (!before) return `${this.names}: ${money(offer.offer_total, offer.currency)}, ${sold(offer.sellable)}`;
    if (before.offer_total !== offer.offer_total) return `${this.names}: now ${money(offer.offer_total, offer.currency)}`;
    // A stock that goes down one by one is no news to listen to, until there is little left.
    return before.sellable !== offer.sellable && offer.sellable < 6 ? `${this.names}: ${sold(offer.sellable)}` : "";
  }

  async #explain() {
    const open = this.reasons.hidden;
    this.reasons.hidden = !open;
    this.why.setAttribute("aria-expanded", String(open));
    if (!open) return;
    this.reasons.replaceChildren(element("p", {}, "Asking the edge"));
    try {
      const answer = await this.shop.explain(this);
      this.reasons.replaceChildren(...this.#why(answer));
    } catch (fault) {
      this.reasons.replaceChildren(element("p", {}, `No answer: ${fault.message}`));
    }
  }

  #why(answer) {
    const skus = new Set(answer.components.flatMap((part) => [part.sku, part.substituted_for]));
    const named = (text) => text.split(" ").map((word) => (skus.has(word) ? this.shop.title(word) : word)).join(" ");
    const planned = (answer.planned_discount_bps / 100).toLocaleString(undefined, { maximumFractionDigits: 2 });
    const facts = [
      `${together(answer)}.`,
      ...answer.listings.slice(0, 1).map((place) => `Place ${place.rank} of this list. ${share(place.confidence)}`.trim()),
      `The planned discount is ${planned} %.`,
      ...answer.reasons.map((reason) => named(reason.detail)),
      `Bundle ${answer.id}, release ${answer.release}.`,
    ];
    return [element("ul", {}, ...facts.map((fact) => element("li", {}, fact)))];
  }
}

const STATES = {
  waiting: "Asking for the price",
  live: "",
  gone: "Can't be sold right now",
  held: "In your cart",
  silent: "Live price not available",
};

function flash(node) {
  node.classList.remove("changed");
  void node.offsetWidth;
  node.classList.add("changed");
}

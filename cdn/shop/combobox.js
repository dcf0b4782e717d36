// Search by name: a combobox with a listbox (WAI-ARIA authoring practices: editable combobox, list autocomplete).

import { element, portrait } from "./element.js";

const SHOWN = 12;

// Best first: every word typed must occur; at the title's start beats at a word's start beats inside a word.
export function find(products, typed) {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return [];
  const found = [];
  for (const product of products) {
    const score = words.reduce((sum, word) => sum + rank(product, word), 0);
    if (Number.isFinite(score)) found.push([score, product.text.length, product]);
  }
  found.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
  return found.slice(0, SHOWN).map((entry) => entry[2]);
}

function rank(product, word) {
  if (product.sku === word) return -1;
  const at = product.text.indexOf(word);
  if (at === 0) return 0;
  if (at < 0) return product.sku.startsWith(word) ? 3 : Infinity;
  return product.text.includes(` ${word}`) ? 1 : 2;
}

export class Combobox {
  #products = [];
  #found = [];
  #active = -1;

  constructor(input, list, choose, announce) {
    Object.assign(this, { input, list, choose, announce });
    input.addEventListener("input", () => this.#search());
    input.addEventListener("keydown", (event) => this.#key(event));
    input.addEventListener("focus", () => input.select());
    input.addEventListener("blur", () => this.#close());
    list.addEventListener("pointerdown", (event) => event.preventDefault());
    list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.#choose(Number(option.dataset.index));
    });
  }

  // What is listed is found anew among them; a list that was closed stays closed.
  set products(rows) {
    this.#products = rows.map(([sku, title, image]) => ({ sku, title, image, text: title.toLowerCase() }));
    if (!this.list.hidden) this.#search();
  }

  #search() {
    this.#found = find(this.#products, this.input.value);
    this.#active = -1;
    this.list.replaceChildren(...this.#found.map((product, index) => option(product, index)));
    if (this.#found.length === 0 && this.input.value.trim()) {
      this.list.replaceChildren(element("li", { class: "nothing", role: "presentation" }, "No product with bundles is called so"));
    }
    this.#open(this.list.children.length > 0);
    if (this.input.value.trim()) this.announce(this.#found.length ? `${this.#found.length} products found` : "no product found");
  }

  #key(event) {
    const last = this.#found.length - 1;
    const moves = { ArrowDown: this.#active < last ? this.#active + 1 : 0, ArrowUp: this.#active > 0 ? this.#active - 1 : last };
    if (event.key in moves && last >= 0) {
      event.preventDefault();
      this.#open(true);
      this.#activate(moves[event.key]);
    } else if (event.key === "Enter" && last >= 0 && !this.list.hidden) {
      event.preventDefault();
      this.#choose(Math.max(0, this.#active));
    } else if (event.key === "Escape") {
      if (this.list.hidden) this.input.value = "";
      this.#close();
    }
  }

  #activate(index) {
    this.list.children[this.#active]?.setAttribute("aria-selected", "false");
    this.#active = index;
    const option = this.list.children[index];
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", option.id);
  }

  #choose(index) {
    const product = this.#found[index];
    this.input.value = product.title;
    this.#close();
    this.choose(product.sku);
  }

  #open(shown) {
    this.list.hidden = !shown;
    this.input.setAttribute("aria-expanded", String(shown));
    if (!shown) this.input.removeAttribute("aria-activedescendant");
  }

  #close() {
    this.#active = -1;
    this.#open(false);
  }
}

function option(product, index) {
  return element(
    "li",
    { role: "option", id: `result-${index}`, "data-index": index, "aria-selected": "false" },
    portrait(product),
    element("span", { class: "result-title" }, product.title),
    element("span", { class: "result-sku" }, product.sku),
  );
}

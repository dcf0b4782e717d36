// The shop page: which region, segment and product is looked at, and the beat that keeps prices live.

import { Card } from "./cards.js";
import { Cart } from "./cart.js";
import { Cdn, canVerify } from "./cdn.js";
import { Checkout } from "./checkout.js";
import { Combobox } from "./combobox.js";
import { Edge } from "./edge.js";
import { byId, element, portrait, say } from "./element.js";
import { Floor } from "./floor.js";
import { starters } from "./starters.js";
import { announce, notice, status } from "./voice.js";
import { age, levels, money, whole } from "./words.js";

const BEAT_MS = 500;
const SLOW_BEAT_MS = 2000;
const MANIFEST_MS = 30000;
const VERIFY_MS = 30000;

class Shop {
  constructor(config) {
    this.config = config;
    this.products = new Map();
    this.asked = new Set();
    this.cards = [];
    this.sku = "";
    this.liveAt = 0;
    this.cart = new Cart(() => { this.checkout.show(); this.wake(); });
    this.checkout = new Checkout(this);
    this.search = new Combobox(byId("search"), byId("results"), (sku) => this.go({ sku }), (text) => announce(text));
    this.floor = new Floor(this);
    fillChoice("region", config.regions, (region) => this.go({ region }));
    for (const id of ["cart", "content"]) {
      document.querySelector(`a[href="#${id}"]`).addEventListener("click", (event) => { event.preventDefault(); byId(id).focus(); });
    }
    window.addEventListener("hashchange", () => this.follow());
    document.addEventListener("visibilitychange", () => this.wake());
  }

  title(sku) {
    return this.products.get(sku)?.title || `Product ${sku}`;
  }

  product(sku) {
    return this.products.get(sku);
  }

  // Where the address bar points to.
  get place() {
    const given = new URLSearchParams(location.hash.slice(1));
    const named = (name) => this.config.regions.find((region) => region.name === name);
    return { region: (named(given.get("region")) || this.config.regions[0]).name, segment: given.get("segment") || "*", sku: given.get("sku") || "" };
  }

  go(change) {
    const { region, segment, sku } = { ...this.place, ...change };
    const next = new URLSearchParams({ region, ...(sku && { sku }), ...(segment !== "*" && { segment }) });
    location.hash = next;
    if (change.region) this.follow();
  }

  // Takes a key out of the address, so that a link that is passed on doesn't hold it.
  takeKey() {
    const given = new URLSearchParams(location.hash.slice(1));
    if (!given.has("key")) return;
    this.floor.secret = given.get("key");
    given.delete("key");
    history.replaceState(null, "", `${location.pathname}${location.search}#${given}`);
  }

  async follow() {
    this.takeKey();
    const { region, segment, sku } = this.place;
    byId("region").value = region;
    if (region !== this.region?.name) await this.#enter(region);
    else if (sku !== this.sku || segment !== this.segment) await this.#look(sku, segment);
  }

  async #enter(name) {
    this.region = this.config.regions.find((region) => region.name === name);
    const { edge, cdn, currency } = this.region;
    this.edge = new Edge(edge || location.origin, name);
    this.cdn = new Cdn(cdn || new URL("..", location).href.replace(/\/$/, ""), name);
    this.currency = currency;
    this.sku = null;
    this.#clear();
    const docs = byId("api-docs");
    Object.assign(docs, { href: `${edge}/docs`, hidden: !edge });
    this.verifiedAt = 0;
    this.cart.open(name);
    this.checkout.open(this.region.orders, name);
    await this.#read();
  }

  // Reads the manifest and shows what is looked at; says so where the CDN can't be read.
  async #read() {
    const { cdn } = this;
    try {
      const changed = await cdn.refresh();
      if (cdn !== this.cdn) return;
      notice("cdn", "");
      if (!changed) return;
      this.#describe();
      cdn.search().then((found) => { if (cdn === this.cdn) this.search.products = found.products; }, (fault) => notice("search", `The search list can't be read: ${fault.message}`));
      await this.#look(this.place.sku, this.place.segment);
    } catch (fault) {
      if (cdn === this.cdn && !cdn.manifest) notice("cdn", `The bundles can't be read: ${fault.message}. Trying again.`);
    }
  }

  #describe() {
    const { manifest } = this.cdn;
    const titles = new Map(this.config.segments?.map((segment) => [segment.name, segment.title]));
    const names = [{ name: "*", title: "Anyone" }, ...manifest.segments.map((name) => ({ name, title: titles.get(name) || name }))];
    fillChoice("segment", names, (segment) => this.go({ segment }));
    say(byId("release"), `Release ${manifest.release}, from orders before ${manifest.as_of}. ${canVerify ? "Every file is checked against its SHA-256." : "Files can't be checked: this page's address is not a secure one."}`);
    this.currency = manifest.currency;
  }

  async #look(sku, segment) {
    const { cdn } = this;
    this.sku = sku;
    this.segment = segment;
    const known = Array.from(byId("segment").options, (option) => option.value);
    byId("segment").value = known.includes(segment) ? segment : "*";
    byId("starters").hidden = Boolean(sku);
    document.body.toggleAttribute("data-looking", Boolean(sku));
    if (!sku) return this.#starters();
    if (!cdn.manifest) return undefined;
    try {
      const shard = await cdn.shardOf(sku);
      if (cdn !== this.cdn || sku !== this.sku || segment !== this.segment) return undefined;
      this.#show(shard);
    } catch (fault) {
      if (cdn === this.cdn && sku === this.sku) notice("cdn", `The bundles can't be read: ${fault.message}`);
    }
    return undefined;
  }

  #learn(shard) {
    for (const [sku, product] of Object.entries(shard.products)) this.products.set(sku, product);
  }

  #show(shard) {
    this.#learn(shard);
    notice("cdn", "");
    const lists = shard.anchors[this.sku] || {};
    const listed = lists[this.segment] || lists["*"] || [];
    this.cards = listed.map((place) => new Card(place, { ...shard.bundles[place.id], ...(place.evidence && { evidence: place.evidence }) }, this));
    this.fresh = true;
    byId("bundle-list").replaceChildren(...this.cards.map((card) => card.node));
    byId("no-bundles").hidden = listed.length > 0;
    byId("bundles").hidden = false;
    byId("product").hidden = false;
    this.#portray();
    this.floor.show(this.#onShow());
    announce(`${this.title(this.sku)}: ${listed.length} ${listed.length === 1 ? "bundle" : "bundles"}`);
    this.wake();
  }

  #portray() {
    const product = this.product(this.sku);
    byId("product-portrait").replaceChildren(portrait(product));
    say(byId("product-title"), this.title(this.sku));
    say(byId("product-facts"), [product?.brand, product?.category && levels(product.category), `No.\u00a0${this.sku}`].filter(Boolean).join(" · "));
    say(byId("product-price"), "");
    say(byId("product-stock"), "");
    document.title = `${this.title(this.sku)} · Tandem`;
  }

  #onShow() {
    const skus = new Set(this.sku ? [this.sku] : []);
    for (const { bundle, offer } of this.cards) {
      for (const part of [...bundle.components, ...(offer?.components || [])]) skus.add(part.sku);
    }
    return Array.from(skus);
  }

  async #starters() {
    this.#clear();
    document.title = "Tandem: goods that go together";
    if (!this.cdn.manifest) return;
    const { cdn } = this;
    const shard = await cdn.shard(0);
    if (cdn !== this.cdn || this.sku) return;
    this.#learn(shard);
    const found = starters(shard).map((sku) => element("li", {},
      element("a", { class: "starter", href: `#${new URLSearchParams({ region: this.region.name, sku })}` },
        portrait(this.product(sku)), element("span", {}, this.title(sku)))));
    byId("starter-list").replaceChildren(...found);
    byId("starters").hidden = found.length === 0;
  }

  #clear() {
    this.cards = [];
    byId("bundle-list").replaceChildren();
    for (const id of ["product", "bundles"]) byId(id).hidden = true;
    this.floor.show([]);
  }

  // Beats now, and from then on regularly while the page can be seen.
  wake() {
    clearTimeout(this.timer);
    if (document.hidden || !this.edge) return;
    this.timer = setTimeout(() => this.#beat(), 0);
  }

  async #beat() {
    const started = performance.now();
    const { edge } = this;
    const turn = (this.turn = Symbol("beat"));
    const alive = await this.#price();
    if (alive && (this.floor.panel.open || this.liveFor !== this.sku || Date.now() - this.liveAt > SLOW_BEAT_MS)) await this.#live();
    this.#regular();
    if (turn !== this.turn || edge !== this.edge || document.hidden) return;
    clearTimeout(this.timer);
    const wait = (alive ? BEAT_MS : SLOW_BEAT_MS) - (performance.now() - started);
    this.timer = setTimeout(() => this.#beat(), Math.max(50, wait));
  }

  #regular() {
    const now = Date.now();
    if (now - (this.readAt || 0) > (this.cdn.manifest ? MANIFEST_MS : SLOW_BEAT_MS)) {
      if (this.readAt) this.#read();
      this.readAt = now;
    }
    if (now - (this.verifiedAt || 0) > VERIFY_MS) {
      this.verifiedAt = now;
      this.cart.verify(this.edge);
    }
  }

  async #price() {
    const { edge, sku, segment, cards } = this;
    if (!sku) return this.#live();
    try {
      const answer = await edge.offers(sku, segment, this.cart.lines);
      if (edge === this.edge && sku === this.sku && segment === this.segment && cards === this.cards) this.#priced(answer);
      return true;
    } catch (fault) {
      if (edge === this.edge && sku === this.sku) this.#silent(fault);
      return false;
    }
  }

  #priced(answer) {
    this.#tellShown(answer);
    this.#beside(answer.bundles.filter(({ source }) => source === "live"));
    const offers = new Map(answer.bundles.map((offer) => [offer.id, offer]));
    const news = this.cards.map((card) => {
      const offer = offers.get(card.listed.id);
      const held = !offer && this.cart.holds(card.bundle.components);
      return card.show(offer ? "live" : held ? "held" : "gone", offer || null);
    });
    if (this.fresh) this.#order();
    this.fresh = false;
    announce(news.filter(Boolean).slice(0, 2).join(". "));
    this.floor.show(this.#onShow());
    if (answer.release !== this.cdn.manifest?.release && Date.now() - (this.readAt || 0) > SLOW_BEAT_MS) {
      this.readAt = Date.now();
      this.#read();
    }
  }

  // What shoppers turn to just now lies on no CDN: its card is made from the edge's answer, and goes when it does.
  #beside(offers) {
    const told = new Set(offers.map(({ id }) => id));
    for (const card of this.cards.filter(({ listed }) => listed.matched === "live" && !told.has(listed.id))) {
      this.cards.splice(this.cards.indexOf(card), 1);
      card.node.remove();
    }
    const shown = new Set(this.cards.map(({ listed }) => listed.id));
    for (const offer of offers.filter(({ id, components }) => !shown.has(id) && this.#known(components))) {
      const card = new Card({ id: offer.id, matched: "live", confidence: offer.evidence.confidence }, offer, this);
      this.cards.push(card);
      byId("bundle-list").append(card.node);
    }
    byId("no-bundles").hidden = this.cards.length > 0;
  }

  // Whether the page has heard of all these products; it asks for the files of the others, once.
  #known(components) {
    const unheard = components.filter(({ sku }) => !this.products.has(sku) && !this.asked.has(sku));
    for (const { sku } of unheard) {
      this.asked.add(sku);
      this.cdn.shardOf(sku).then((shard) => this.#learn(shard), () => {});
    }
    return unheard.length === 0;
  }

  // What can be sold first; once shown, a card keeps its place, so that nothing moves under a hand.
  #order() {
    const [yes, no] = [true, false].map((wanted) => this.cards.filter((card) => Boolean(card.offer) === wanted));
    byId("bundle-list").replaceChildren(...[...yes, ...no].map((card) => card.node));
  }

  async #live() {
    const { edge, sku } = this;
    const skus = this.#onShow();
    if (skus.length === 0) skus.push("0");
    try {
      const answer = await edge.live(skus);
      if (edge !== this.edge) return true;
      this.liveAt = Date.now();
      this.liveFor = sku;
      this.floor.learn(answer.products);
      this.#aged(answer);
      const own = answer.products.find((product) => product.sku === this.sku);
      if (own) this.#own(own);
      return true;
    } catch (fault) {
      if (edge === this.edge) this.#silent(fault);
      return false;
    }
  }

  #own(product) {
    const price = product.unit_price === null ? "" : money(product.unit_price, this.currency);
    say(byId("product-price"), product.sale_price === null || product.list_price === product.unit_price ? price : `${price} instead of ${money(product.list_price, this.currency)}`);
    say(byId("product-stock"), product.stock === null ? "Stock not known" : product.stock === 0 ? "Sold out" : `${whole.format(product.stock)} in stock`);
  }

  #aged(answer) {
    const ages = [answer.prices_as_of && `prices ${age(answer.prices_as_of)}`, answer.stock_as_of && `stock ${age(answer.stock_as_of)}`].filter(Boolean).join(", ");
    if (answer.stale) status("stale", `Stale: ${ages || "no live data"}`);
    else status("live", `Live: ${ages}`);
    notice("stale", answer.stale ? "Live data is older than it may be, or its feed is cut off. What is too old gets no discount." : "");
  }

  #silent(fault) {
    for (const card of this.cards) card.show("silent", null);
    say(byId("product-price"), "");
    say(byId("product-stock"), "");
    if (byId("live").dataset.state !== "silent") announce("Live prices are not available");
    status("silent", "Live prices are not available", fault.status ? fault.message : "the edge does not answer");
    notice("stale", "");
  }

  // Once for each list that a shopper comes to: which bundles could be bought.
  #tellShown({ release, bundles }) {
    const list = [release, this.region.name, this.sku, this.segment].join(" ");
    if (!release || bundles.length === 0 || list === this.told) return;
    this.told = list;
    this.release = release;
    this.edge.tell("exposure", release, { anchor: this.sku, segment: this.segment, bundle_ids: bundles.map(({ id }) => id) });
  }

  add(card) {
    if (!card.offer) return;
    this.edge.tell("cart", this.release, { bundle_id: card.listed.id, anchor: this.sku, offer_total: card.offer.offer_total });
    const titles = Object.fromEntries(card.offer.components.map(({ sku }) => [sku, this.title(sku)]));
    announce(`In the cart: ${card.names}`);
    this.cart.add(card.offer, titles, { segment: this.segment, anchor: this.sku, release: this.release });
    this.cart.verify(this.edge);
    if (card.add.disabled || document.activeElement === document.body) card.why.focus();
  }

  explain(card) {
    return this.edge.explain(card.listed.id, this.segment, this.sku);
  }
}

function fillChoice(id, entries, choose) {
  const select = byId(id);
  const chosen = select.value;
  select.replaceChildren(...entries.map(({ name, title }) => element("option", { value: name }, title)));
  if (entries.some(({ name }) => name === chosen)) select.value = chosen;
  select.onchange = () => choose(select.value);
}

async function start() {
  try {
    const answer = await fetch("config.json");
    if (!answer.ok) throw new Error(`config.json: ${answer.status}`);
    const shop = new Shop(await answer.json());
    await shop.follow();
  } catch (fault) {
    notice("start", `The shop can't open: ${fault.message}`);
  }
}

start();

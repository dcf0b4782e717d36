// DOM nodes from what they hold. Text is always set as text: a title from a catalogue can't become markup.

export function element(name, attributes = {}, ...content) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...content.filter((part) => part !== null && part !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

// Sets the text only where it differs, so that a screen reader and a selection are left in peace.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// A product's picture on a tint that its category always gets.
export function portrait(product) {
  const source = product?.image || "symbols/other.svg";
  const image = element("img", { src: source, alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => { image.src = "symbols/other.svg"; }, { once: true });
  return element("span", { class: "tile", "data-tint": tint(product?.category || source) }, image);
}

function tint(text) {
  let sum = 0;
  for (const letter of text) sum = (sum * 31 + letter.codePointAt(0)) >>> 0;
  return String(sum % 6);
}

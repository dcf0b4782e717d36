// What the page says of itself: how live it is, what is wrong, what has just changed.

import { byId, say } from "./element.js";

export function status(state, text, more = "") {
  const node = byId("live");
  node.dataset.state = state;
  node.title = more;
  say(byId("live-text"), text);
}

const notices = new Map();

// What is wrong right now, one text for each kind of fault.
export function notice(kind, text) {
  notices.set(kind, text);
  const texts = Array.from(notices.values()).filter(Boolean);
  say(byId("notice"), texts.join(" "));
  byId("notice").hidden = texts.length === 0;
}

// For who listens instead of looking.
export function announce(text) {
  if (text) byId("changes").textContent = text;
}

// Numbers as a shopper reads them.

const formats = new Map();

function format(currency) {
  if (!formats.has(currency)) formats.set(currency, new Intl.NumberFormat(undefined, { style: "currency", currency }));
  return formats.get(currency);
}

const places = (currency) => format(currency).resolvedOptions().maximumFractionDigits;

// 1299, "USD" → "$12.99"
export function money(minorUnits, currency) {
  return format(currency).format(minorUnits / 10 ** places(currency));
}

// 1299, "USD" → "12.99", for an input field
export function plainAmount(minorUnits, currency) {
  return (minorUnits / 10 ** places(currency)).toFixed(places(currency));
}

// "12.99" or "12,99", "USD" → 1299; NaN for anything else
export function minorUnits(text, currency) {
  const match = /^(\d{1,9})(?:[.,](\d+))?$/.exec(text.trim());
  const digits = places(currency);
  if (!match || (match[2] || "").length > digits) return NaN;
  return Number(match[1] + (match[2] || "").padEnd(digits, "0"));
}

export function age(then, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - Date.parse(then)) / 1000));
  if (seconds < 120) return `${seconds} s old`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min old`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h old`;
  return `${Math.round(seconds / 86400)} days old`;
}

// "GROCERY > FLUID MILK PRODUCTS" → "Grocery › Fluid milk products"
export function levels(category) {
  return category.split(" > ").map((level) => (level === level.toUpperCase() ? level.slice(0, 1) + level.slice(1).toLowerCase() : level)).join(" › ");
}

export const whole = new Intl.NumberFormat();
const oneDigit = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 0 });

export function together(evidence) {
  if (!evidence.orders_together) return "A suggestion: too few orders so far to say";
  const orders = `Bought together in ${whole.format(evidence.orders_together)} ${evidence.orders_together === 1 ? "order" : "orders"}`;
  return evidence.lift > 1 ? `${orders}, ${oneDigit.format(evidence.lift)} times more than by chance` : orders;
}

export function share(confidence) {
  return confidence < 0.005 ? "" : `${percent.format(confidence)} of those who take it take all of this`;
}

export const LEVELS = {
  segment: "Among people in this segment",
  region: "In this region",
  global: "Everywhere",
  category: "Bought with products of this kind",
  content: "Bought with similar products",
  popular: "Popular in this region",
  live: "Wanted right now",
};

export const sold = (count) => (count === 1 ? "Only 1 left" : count < 6 ? `Only ${count} left` : `${whole.format(count)} can be sold now`);

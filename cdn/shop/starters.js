// Products to start with, for who has nothing in mind.

const SHOWN = 8;

// Anchors of the shard with the most common orders behind them, no two with the same picture until all have been seen.
export function starters(shard) {
  const strength = ([, lists]) => Math.max(...(lists["*"] || []).map(({ id }) => shard.bundles[id].evidence.orders_together), 0);
  const ranked = Object.entries(shard.anchors).map((entry) => [strength(entry), entry[0]]).sort((one, other) => other[0] - one[0] || (one[1] < other[1] ? -1 : 1)).map((entry) => entry[1]);
  const seen = new Set();
  const first = ranked.filter((sku) => {
    const image = shard.products[sku]?.image;
    return !seen.has(image) && seen.add(image);
  });
  return [...new Set([...first, ...ranked])].slice(0, SHOWN);
}

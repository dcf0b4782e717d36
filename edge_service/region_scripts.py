"""The Lua that runs inside a region's Redis: where two writers of one value meet, each in one step.

A Redis at its `maxmemory` refuses a script whose first write needs memory, and lets one go on whose first write needs
none. So TAKE, KEEP, GIVE_BACK and SWITCH remove something first: a rollback works where nothing more fits in.
"""

from __future__ import annotations

APPLY = """
local kept, ages = ARGV[1], {tonumber(ARGV[2]), tonumber(ARGV[3])}
local skus, sequences, ats, stocks, lists, sales = unpack(cmsgpack.unpack(ARGV[4]))
if #skus == 0 and ages[1] == 0 and ages[2] == 0 then return 0 end
local ahead = ARGV[5] == 'again' and 0 or 1
local match, nothing, nine = string.match, '- 0 0 - 0 0 - 0 0', '^(%S+)' .. string.rep(' (%S+)', 8) .. '$'
local found = #skus > 0 and redis.call('HMGET', KEYS[1], unpack(skus)) or {}
local order, entries, placed, applied = {}, {}, 0, 0

local function stock_alone(there, told, sequence, at)
  local was, rest = match(there, '^%S+ (%S+) %S+ (.*)$')
  if tonumber(at) > ages[1] then ages[1] = tonumber(at) end
  if tonumber(sequence) - tonumber(was) < ahead then return nil end
  return told .. ' ' .. sequence .. ' ' .. at .. ' ' .. rest
end

local function any(there, told, sequence, at)
  local word, changed = {match(there, nine)}, false
  for field = 1, 3 do
    local w, kind = field * 3 - 2, field == 1 and 1 or 2
    if told[field] then
      local newer
      if sequence == '0' then
        newer = tonumber(at) > tonumber(word[w + 2])
        if newer then word[w], word[w + 2] = told[field], at end
      else
        if tonumber(at) > ages[kind] then ages[kind] = tonumber(at) end
        newer = tonumber(sequence) - tonumber(word[w + 1]) >= ahead
        if newer then word[w], word[w + 1], word[w + 2] = told[field], sequence, at end
      end
      changed = changed or newer
    end
  end
  return changed and table.concat(word, ' ') or nil
end

for n = 1, #skus do
  local sku, sequence, at, stock, list, sale = skus[n], sequences[n], ats[n], stocks[n], lists[n], sales[n]
  local there, entry = entries[sku] or found[n] or nothing, nil
  if stock and not list and not sale and sequence ~= '0' then
    entry = stock_alone(there, stock, sequence, at)
  else
    entry = any(there, {stock, list, sale}, sequence, at)
  end
  if entry then
    applied = applied + 1
    if not entries[sku] then
      placed = placed + 1
      order[placed] = sku
    end
    entries[sku] = entry
  end
end
local stamp = {}
for n, kind in ipairs({'stock', 'prices'}) do
  local was = tonumber(redis.call('HGET', KEYS[2], kind) or '0')
  stamp[n] = string.format('%.0f', math.max(was, ages[n]))
  if ages[n] > was then redis.call('HSET', KEYS[2], kind, stamp[n]) end
end
local pairs_ = {'', stamp[1] .. ' ' .. stamp[2]}
for n = 1, placed do
  pairs_[2 * n + 1] = order[n]
  pairs_[2 * n + 2] = entries[order[n]]
end
if placed > 0 then redis.call('HSET', KEYS[1], unpack(pairs_, 3)) end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', kept, '*', unpack(pairs_))
return applied
"""
"""KEYS: LIVE, LIVE_AGES, DELTAS. ARGV: entries kept, the times of a heartbeat, columns of changes (MessagePack): sku,
sequence, at, stock, list price, sale price; and `again` where what was told before is told again.

Per field the higher sequence wins, so any order of the same deltas ends alike. Told again, one with the same sequence
wins too: over what a snapshot, which has no sequence, put there meanwhile.
"""


def advancing(script: str) -> str:
    """`script`, refused where what is read is not where its reader believes; else that moves on with it, in one step.

    It is called with PLACES after its KEYS, and after its ARGV a list (MessagePack) of names in PLACES, what stands
    there, and what shall. A script that fails half-way leaves PLACES as they were: what it did is done again.
    """
    return f"""
local places, moves, names, told = table.remove(KEYS), cmsgpack.unpack(table.remove(ARGV)), {{}}, {{}}
for n, move in ipairs(moves) do
  names[n], told[2 * n - 1], told[2 * n] = move[1], move[1], move[3]
end
local held = redis.call('HMGET', places, unpack(names))
for n, move in ipairs(moves) do
  if (held[n] or '') ~= move[2] then return redis.error_reply('OTHERPLACE ' .. move[1]) end
end
local function work()
{script}
end
local done = work()
redis.call('HSET', places, unpack(told))
return done
"""


_NOW = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
"""

TAKE = f"""{_NOW}
local held = redis.call('HMGET', KEYS[1], 'holder', 'until')
if held[1] and tonumber(held[2]) > now and ARGV[3] ~= 'force' then return {{'held', held[1]}} end
local newest = tonumber(redis.call('GET', KEYS[2]) or '0')
local fence = string.format('%.0f', math.max(newest + 1, now))
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', string.format('%.0f', now + ARGV[2]))
redis.call('SET', KEYS[2], fence)
return {{'granted', fence}}
"""
"""KEYS: LEASE, FENCE. ARGV: holder, ms, `wait` or `force`."""

KEEP = f"""
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
{_NOW}
redis.call('HDEL', KEYS[1], 'until')
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + ARGV[2]))
return 1
"""
"""KEYS: LEASE, FENCE. ARGV: fence, ms."""

GIVE_BACK = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
"""KEYS: LEASE, FENCE. ARGV: fence. FENCE stays, so that the next one is higher."""

_REFUSED = f"""{_NOW}
local lease, newest_key, fence = table.remove(KEYS, 1), table.remove(KEYS, 1), table.remove(ARGV)
local refused
if fence == '' then
  local held = redis.call('HMGET', lease, 'holder', 'until')
  if held[1] and tonumber(held[2]) > now then refused = held[1] .. ' publishes here now' end
else
  local newest = redis.call('GET', newest_key)
  if not newest or tonumber(newest) < tonumber(fence) then
    refused = 'Redis lost its data meanwhile'
  elseif newest ~= fence then
    refused = 'a newer publisher took over'
  end
end
"""


def fenced(script: str) -> str:
    """`script`, refused where its writer's fence is not the newest one granted.

    It is called with LEASE and FENCE before its KEYS, and after its ARGV the fence, or nothing: who has no fence may
    write while nobody holds the lease.
    """
    return f"{_REFUSED}if refused then return redis.error_reply('FENCED ' .. refused) end\n{script}"


MAY_WRITE = f"""
{_REFUSED}
if refused then
  redis.call('DEL', KEYS[1])
  redis.call('SET', KEYS[1], '')
  redis.call('DEL', KEYS[1])
  return redis.error_reply('FENCED ' .. refused)
end
return 1
"""
"""KEYS: LEASE, FENCE, a key of the writer's own that it watches: a change of it ends the transaction that follows.

ARGV: the fence, or nothing.
"""

REPAIR = """
for i = 1, #ARGV, 2 do redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
"""
"""KEYS: one hash. ARGV: fields and values; what is there stays."""

NOTE_SNAPSHOT = f"""{_NOW}
local before = tonumber(redis.call('HGET', KEYS[1], 'mark') or '0')
redis.call('HSET', KEYS[1], 'mark', string.format('%.0f', math.max(now, before + 1)))
return redis.call('HSET', KEYS[1], unpack(ARGV))
"""
"""KEYS: LIVE_SNAPSHOT. ARGV: fields and values."""

SET_ONCE = """
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
"""
"""KEYS: one string. ARGV: its value. Gives the value that is there."""

UNLINK = "return redis.call('UNLINK', unpack(KEYS))"
"""KEYS: what is removed. Gives how many there were."""

SWITCH = """
if redis.call('EXISTS', KEYS[3]) == 0 then return 'unsealed' end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[1])
if ARGV[2] ~= '' and redis.call('EXISTS', KEYS[4]) == 1 then redis.call('SET', KEYS[2], ARGV[2]) end
return 'done'
"""
"""KEYS: CURRENT, BACKUP, META of each. ARGV: what becomes current, what becomes the backup or nothing."""

PUT_CANDIDATES = """
local held = redis.call('GET', KEYS[2])
if held then
  local query, batch = string.match(held, '^(%S+) (%d+)$')
  if query == ARGV[1] and tonumber(batch) >= tonumber(ARGV[2]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2])
return 1
"""
"""KEYS: CANDIDATES, CANDIDATES_BATCH. ARGV: the query and its batch, the pairs, ms to live. A batch that is done again,
or one older than what is there, changes nothing."""

UNSEAL = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return 'current' end
if redis.call('GET', KEYS[2]) == ARGV[1] then return 'backup' end
return tostring(redis.call('DEL', KEYS[3]))
"""
"""KEYS: CURRENT, BACKUP, META."""

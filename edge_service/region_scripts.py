"""The Lua that runs inside a region's Redis: where two writers of one value meet, each in one step.

A Redis at its `maxmemory` refuses a script whose first write needs memory, and lets one go on whose first write needs
none. So TAKE, KEEP, GIVE_BACK and SWITCH remove something first: a rollback works where nothing more fits in.
"""

from __future__ import annotations

APPLY = """
local kept, ages = ARGV[1], {tonumber(ARGV[2]), tonumber(ARGV[3])}
local skus, applied = {}, 0
for i = 4, #ARGV, 6 do skus[#skus + 1] = ARGV[i] end
local found = #skus > 0 and redis.call('HMGET', KEYS[1], unpack(skus)) or {}
local order, entries = {}, {}
for n = 1, #skus do
  local base = 4 + (n - 1) * 6
  local sku, sequence, at = ARGV[base], ARGV[base + 1], ARGV[base + 2]
  local seeding = sequence == '0'
  local word, changed = {}, false
  for part in string.gmatch(entries[sku] or found[n] or '- 0 0 - 0 0 - 0 0', '%S+') do word[#word + 1] = part end
  for field = 0, 2 do
    local told, w = ARGV[base + 3 + field], field * 3 + 1
    if told ~= '' then
      if seeding then
        if tonumber(at) > tonumber(word[w + 2]) then word[w], word[w + 2], changed = told, at, true end
      else
        local kind = field == 0 and 1 or 2
        if tonumber(at) > ages[kind] then ages[kind] = tonumber(at) end
        if tonumber(sequence) > tonumber(word[w + 1]) then
          word[w], word[w + 1], word[w + 2], changed = told, sequence, at, true
        end
      end
    end
  end
  if changed then
    applied = applied + 1
    if not entries[sku] then order[#order + 1] = sku end
    entries[sku] = table.concat(word, ' ')
  end
end
local stamp = {}
for n, kind in ipairs({'stock', 'prices'}) do
  local was = tonumber(redis.call('HGET', KEYS[2], kind) or '0')
  stamp[n] = string.format('%.0f', math.max(was, ages[n]))
  if ages[n] > was then redis.call('HSET', KEYS[2], kind, stamp[n]) end
end
local pairs_ = {'', stamp[1] .. ' ' .. stamp[2]}
for _, sku in ipairs(order) do
  pairs_[#pairs_ + 1] = sku
  pairs_[#pairs_ + 1] = entries[sku]
end
if #order > 0 then redis.call('HSET', KEYS[1], unpack(pairs_, 3)) end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', kept, '*', unpack(pairs_))
return applied
"""
"""KEYS: LIVE, LIVE_AGES, DELTAS. Per field the higher sequence wins, so any order of the same deltas ends alike."""

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

"""The Lua that runs inside a region's Redis: where two writers of one value meet, each in one step."""

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

POINT = """
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unsealed', ''} end
local was = redis.call('GET', KEYS[1])
if was == ARGV[1] then return {'same', redis.call('GET', KEYS[2]) or ''} end
if was then redis.call('SET', KEYS[2], was) end
redis.call('SET', KEYS[1], ARGV[1])
return {'moved', was or ''}
"""
"""KEYS: CURRENT, BACKUP, the release's META."""

ROLL_BACK = """
local now = redis.call('GET', KEYS[1])
if now == ARGV[2] then return 'done' end
if now ~= ARGV[1] or redis.call('GET', KEYS[2]) ~= ARGV[2] then return 'moved' end
if redis.call('EXISTS', KEYS[3]) == 0 then return 'unsealed' end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
return 'done'
"""
"""KEYS: CURRENT, BACKUP, META of the good one. ARGV: the bad one, the good one; safe to send twice."""

UNSEAL = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return 'current' end
if redis.call('GET', KEYS[2]) == ARGV[1] then return 'backup' end
return tostring(redis.call('DEL', KEYS[3]))
"""
"""KEYS: CURRENT, BACKUP, META."""

REPAIR = """
for i = 1, #ARGV, 2 do redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
"""
"""KEYS: one hash. ARGV: fields and values; what is there stays."""

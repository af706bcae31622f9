-- trim: removes entries that every group has acknowledged and that are older than the retention. A stream without
-- groups is left alone: no group has seen its entries.
-- KEYS[1] stream. ARGV: retention (ms), groups that must see every entry. Returns how many entries it removed; -1, and
-- removes none, while one of those groups does not exist.
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local function less(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local missing = {}
for i = 2, #ARGV do missing[ARGV[i]] = true end
local keep_from = nil -- the oldest entry that some group still needs
for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #row, 2 do group[row[i]] = row[i + 1] end
  missing[group['name']] = nil
  local needs
  if group['pending'] > 0 then
    needs = redis.call('XPENDING', KEYS[1], group['name'])[2]
  else
    local ms, seq = parts(group['last-delivered-id'])
    needs = string.format('%.0f-%.0f', ms, seq + 1) -- everything up to the last delivered entry is acknowledged
  end
  if keep_from == nil or less(needs, keep_from) then keep_from = needs end
end
if next(missing) ~= nil then return -1 end
if keep_from == nil then return 0 end
local now = redis.call('TIME')
local young = string.format('%.0f-0', now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(ARGV[1]))
if tonumber(ARGV[1]) > 0 and less(young, keep_from) then keep_from = young end
return redis.call('XTRIM', KEYS[1], 'MINID', '=', keep_from)

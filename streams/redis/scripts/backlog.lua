-- backlog: what waits in a stream, seen at one moment.
-- KEYS[1] stream. Returns its length, the server's time (ms), and for each group: its name, how many consumers it has,
-- how many entries are pending, how many it was never given (-1: the server does not know), and the ID of its oldest
-- pending entry ("" if none). A stream that does not exist is empty.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, now_ms, {}} end
local function fields(row)
  local found = {}
  for i = 1, #row, 2 do found[row[i]] = row[i + 1] end
  return found
end
local stream = fields(redis.call('XINFO', 'STREAM', KEYS[1]))
local groups = {}
for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = fields(row)
  local lag = group['lag'] or -1 -- Redis 6.2 does not tell, and no version does once entries were removed by XDEL
  if group['last-delivered-id'] == stream['last-generated-id'] then lag = 0 end
  local oldest = group['pending'] > 0 and redis.call('XPENDING', KEYS[1], group['name'])[2] or ''
  table.insert(groups, {group['name'], group['consumers'], group['pending'], lag, oldest})
end
return {stream['length'], now_ms, groups}

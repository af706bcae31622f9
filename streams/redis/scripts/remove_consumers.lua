-- remove_consumers: forgets consumers that hold nothing. XGROUP DELCONSUMER also drops what a consumer holds, so the check
-- and the removal must be one step.
-- KEYS[1] stream. ARGV: group, a consumer's name or '' for all, the least idle time (ms). Returns how many it removed.
local removed = 0
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #row, 2 do consumer[row[i]] = row[i + 1] end
  if (ARGV[2] == '' or consumer['name'] == ARGV[2])
      and consumer['pending'] == 0 and consumer['idle'] >= tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer['name'])
    removed = removed + 1
  end
end
return removed

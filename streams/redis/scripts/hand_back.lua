-- hand_back: lets another worker take what this consumer holds, at once instead of after a lease.
-- KEYS[1] stream. ARGV: group, consumer, idle time to set (ms), deliveries to record, IDs in ascending order. Returns the
-- IDs that it did not own. With an idle time of zero the consumer keeps the others, and only the count changes.
local mine, lost = owned(KEYS[1], ARGV[1], ARGV[2], 5, #ARGV)
if #mine == 0 then return lost end
local claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], '0'}
for _, id in ipairs(mine) do claim[#claim + 1] = id end
claim[#claim + 1] = 'IDLE'
claim[#claim + 1] = ARGV[3]
claim[#claim + 1] = 'RETRYCOUNT'
claim[#claim + 1] = ARGV[4]
claim[#claim + 1] = 'JUSTID'
redis.call(unpack(claim))
return lost

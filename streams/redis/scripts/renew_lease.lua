-- renew_lease: extends what this consumer still owns, by setting its idle time to zero.
-- KEYS[1] stream. ARGV: group, consumer, IDs in ascending order. Returns the IDs that it lost.
-- JUSTID, so that a renewal is not counted as a delivery.
local mine, lost = owned(KEYS[1], ARGV[1], ARGV[2], 3, #ARGV)
if #mine > 0 then
  local claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], '0'}
  for _, id in ipairs(mine) do claim[#claim + 1] = id end
  claim[#claim + 1] = 'JUSTID'
  redis.call(unpack(claim))
end
return lost

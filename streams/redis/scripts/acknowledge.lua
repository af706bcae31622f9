-- acknowledge: XACK for what this consumer still owns, so that a stalled worker's late acknowledgement cannot remove an
-- entry that another worker is processing now.
-- KEYS[1] stream. ARGV: group, consumer, IDs in ascending order. Returns the IDs that it did not own.
local mine, lost = owned(KEYS[1], ARGV[1], ARGV[2], 3, #ARGV)
if #mine > 0 then redis.call('XACK', KEYS[1], ARGV[1], unpack(mine)) end
return lost

-- look: entries of a stream, or those that are pending in a group, without a change to either.
-- KEYS[1] stream. ARGV: group ("": all entries), the ID to begin after, how many. Returns for each its ID, fields (false:
-- the entry is not there any more), consumer, milliseconds since it was given out, and how often. XREAD, because the
-- servers' users may send it: they were never allowed XRANGE.
local group, after, most = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
local function read(from, count)
  local got = redis.call('XREAD', 'COUNT', count, 'STREAMS', KEYS[1], from)
  return got and got[1][2] or {}
end
local found = {}
if group == '' then
  for _, one in ipairs(read(after, most)) do table.insert(found, {one[1], one[2], '', 0, 0}) end
  return found
end
-- By digits, because Lua's numbers do not hold 64 bits.
local function less_one(digits)
  local zeros = digits:match('0*$')
  local at = #digits - #zeros
  if at == 0 then return nil end
  local text = digits:sub(1, at - 1) .. (tonumber(digits:sub(at, at)) - 1) .. string.rep('9', #zeros)
  return (text:gsub('^0+(%d)', '%1'))
end
local function before(id)
  local ms, number = id:match('^(%d+)-(%d+)$')
  local less = less_one(number)
  if less then return ms .. '-' .. less end
  return less_one(ms) .. '-18446744073709551615'
end
local rows = redis.pcall('XPENDING', KEYS[1], group, '(' .. after, '+', most)
if rows.err then return string.find(rows.err, 'NOGROUP') and {} or rows end
for _, row in ipairs(rows) do
  local one = read(before(row[1]), 1)[1]
  table.insert(found, {row[1], one and one[1] == row[1] and one[2], row[2], row[3], row[4]})
end
return found

-- owned: put before every script that touches pending entries. Of the IDs in ARGV[from] to ARGV[to], in any order,
-- returns those that are pending for `consumer`, and those that are not. This is the fence: whoever asks can no longer
-- own an entry that another consumer has claimed since.
local function owned(stream, group, consumer, from, to)
  local held, mine, lost = {}, {}, {}
  -- One range usually covers everything, since a consumer's entries are near each other; what the range did not show
  -- is looked up one by one.
  local page = redis.call('XPENDING', stream, group, ARGV[from], ARGV[to], to - from + 1, consumer)
  for _, row in ipairs(page) do held[row[1]] = true end
  for i = from, to do
    local id = ARGV[i]
    if held[id] or #redis.call('XPENDING', stream, group, id, id, 1, consumer) > 0 then
      mine[#mine + 1] = id
    else
      lost[#lost + 1] = id
    end
  end
  return mine, lost
end

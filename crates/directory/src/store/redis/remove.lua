-- Removes one set whose time is over; what was seen of it stays until Redis lets it expire. Behind revision.lua.
-- KEYS: set, index, due, revision
-- ARGV: now, member, batch of now
-- Replies how many were removed.
local ends = redis.call('ZSCORE', KEYS[3], ARGV[2])
if not ends or tonumber(ends) > tonumber(ARGV[1]) then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2])
changed(KEYS[4], tonumber(ARGV[3]))
return 1

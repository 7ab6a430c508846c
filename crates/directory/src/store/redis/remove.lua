-- Removes one set whose time is over; what was seen of it stays until Redis lets it expire.
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
-- As Revision::after_change does it.
local newest = tonumber(string.match(redis.call('GETRANGE', KEYS[4], 0, 63), '^(%d+) %d+$')) or 0
local batch = tonumber(ARGV[3])
if batch < newest - 1 then
  batch = newest + 1
end
if batch > newest then
  redis.call('SET', KEYS[4], string.format('%.0f %.0f', batch, newest))
end
return 1

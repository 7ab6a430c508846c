-- Removes one set whose time is over; what was seen of it stays until Redis lets it expire. Behind revision.lua and
-- history.lua.
-- KEYS: set, index, due, revision, history, kept
-- ARGV: now, member, batch of now; of the history most rows, most bytes, oldest number, seconds; most bytes of a set
-- Replies how many were removed.
local ends = redis.call('ZSCORE', KEYS[3], ARGV[2])
if not ends or tonumber(ends) > tonumber(ARGV[1]) then
  return 0
end
local held = redis.call('GETRANGE', KEYS[1], 0, ARGV[8])
local is_listed = redis.call('ZSCORE', KEYS[2], ARGV[2])
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2])
local most = {
  rows = tonumber(ARGV[4]), bytes = tonumber(ARGV[5]), oldest = tonumber(ARGV[6]), seconds = ARGV[7],
}
local before, number = changed(KEYS[4], tonumber(ARGV[3]))
local keys = { history = KEYS[5], kept = KEYS[6] }
note(keys, before, number, ARGV[2], was(held, is_listed, tonumber(ARGV[8])), most)
return 1

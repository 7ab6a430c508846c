-- Takes in one set, unless the replay rule forbids it; every reply but 0 follows a write, so that WAIT covers it.
-- Behind revision.lua and history.lua.
-- KEYS: set, seen, index, due, revision, history, kept
-- ARGV: now, timestamp, expires, digest, set, member, seconds to keep the set, seconds to keep what was seen, replay,
-- batch of now; of the history most rows, most bytes, oldest number, seconds; most bytes of a set
-- Replies 0 not newer, 1 created, 2 replaced, 3 repeated.
local now, timestamp = tonumber(ARGV[1]), tonumber(ARGV[2])
local verdict = 1
local held = redis.call('GETRANGE', KEYS[1], 0, ARGV[15])
local is_listed = redis.call('ZSCORE', KEYS[3], ARGV[6])
-- What is no row of ours is damage; the set that comes now takes its place.
local seen, ends, digest = string.match(redis.call('GETRANGE', KEYS[2], 0, 127), '^(%d+) (%d+) (%x+)$')
-- As Seen::counts does it.
if seen and now < tonumber(seen) + tonumber(ARGV[9]) and tonumber(seen) <= now + tonumber(ARGV[9]) then
  seen = tonumber(seen)
  if timestamp < seen or (timestamp == seen and digest ~= ARGV[4]) then
    return 0
  end
  if timestamp == seen then
    -- Where the set itself is gone a repeat brings it back, and secondaries have to hear of it.
    if held ~= '' and is_listed then
      verdict = 3
    end
  elseif now < tonumber(ends) then
    verdict = 2
  end
end
redis.call('SET', KEYS[1], ARGV[5], 'EX', ARGV[7])
redis.call('SET', KEYS[2], ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4], 'EX', ARGV[8])
redis.call('ZADD', KEYS[3], 0, ARGV[6])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[6])
-- A repeat may mend what was damaged.
if not (is_listed and held == ARGV[5]) then
  local most = {
    rows = tonumber(ARGV[11]), bytes = tonumber(ARGV[12]), oldest = tonumber(ARGV[13]), seconds = ARGV[14],
  }
  local before, number = changed(KEYS[5], tonumber(ARGV[10]))
  local keys = { history = KEYS[6], kept = KEYS[7] }
  note(keys, before, number, ARGV[6], was(held, is_listed, tonumber(ARGV[15])), most)
end
return verdict

-- Notes the shape of the zone; another one is a change, with which the history begins. Behind revision.lua and
-- history.lua.
-- KEYS: shape, revision, history, kept
-- ARGV: shape, batch of now
local known = redis.call('GETRANGE', KEYS[1], 0, 63)
-- Written in any case, so that WAIT covers it.
redis.call('SET', KEYS[1], ARGV[1])
if known ~= '' and known ~= ARGV[1] then
  local before, number = changed(KEYS[2], tonumber(ARGV[2]))
  cut({ history = KEYS[3], kept = KEYS[4] }, before, number, number)
end
return 1

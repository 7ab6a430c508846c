-- Whose sets changed with numbers above one and up to another. Behind revision.lua and history.lua.
-- KEYS: revision, history, kept
-- ARGV: from, to
-- Replies where the history begins, whether a change had the number 'from', and who changed.
local keys = { history = KEYS[2], kept = KEYS[3] }
local from, to = tonumber(ARGV[1]), tonumber(ARGV[2])
local newest = revision(KEYS[1])
local begin = kept(keys, newest).begin
local is_known = from > 0 and
  (begin == from or #redis.call('XRANGE', keys.history, ARGV[1], ARGV[1], 'COUNT', 1) > 0)
local reply, met = { begin, is_known and 1 or 0 }, {}
for _, row in ipairs(rows_from(keys, from + 1, to)) do
  local who = row[2][2]
  if not met[who] then
    met[who] = true
    reply[#reply + 1] = who
  end
end
return reply

-- What was in sets before their first changes with numbers above two others. Behind revision.lua and history.lua.
-- KEYS: revision, history, kept
-- ARGV: from, to, members
-- Replies where the history begins, and two values for each member: 0 where there is no such change.
local keys = { history = KEYS[2], kept = KEYS[3] }
local from, to = tonumber(ARGV[1]), tonumber(ARGV[2])
local newest = revision(KEYS[1])
local reply, wanted, first, second = { kept(keys, newest).begin }, {}, {}, {}
for at = 3, #ARGV do
  wanted[ARGV[at]] = true
end
for _, row in ipairs(rows_from(keys, from + 1)) do
  local who, was = row[2][2], row[2][4]
  if wanted[who] then
    first[who] = first[who] or was
    if number_of(row[1]) > to then
      second[who] = second[who] or was
    end
  end
end
for at = 3, #ARGV do
  reply[#reply + 1] = first[ARGV[at]] or 0
  reply[#reply + 1] = second[ARGV[at]] or 0
end
return reply

-- Makes the history begin with a number, unless it begins later. Behind revision.lua and history.lua.
-- KEYS: revision, history, kept
-- ARGV: number
local newest = revision(KEYS[1])
cut({ history = KEYS[2], kept = KEYS[3] }, newest, newest, tonumber(ARGV[1]))
return 1

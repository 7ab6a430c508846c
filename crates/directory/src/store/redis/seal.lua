-- Sees to it that no change to come takes a number, or a lower one. Behind revision.lua.
-- KEYS: revision
-- ARGV: number
seal(KEYS[1], tonumber(ARGV[1]))
return 1

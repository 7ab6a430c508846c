-- The revision of a hash tag: 'newest before sealed', as Revision has it. Stands before the scripts that use it.
local function revision(key)
  local newest, before, sealed = string.match(redis.call('GETRANGE', key, 0, 95), '^(%d+) (%d+) ?(%d*)$')
  -- What cannot be read is damage: as if nothing had changed yet.
  return tonumber(newest) or 0, tonumber(before) or 0, tonumber(sealed) or 0
end
local function store(key, newest, before, sealed)
  redis.call('SET', key, string.format('%.0f %.0f %.0f', newest, before, sealed))
end
-- As Revision::after_change does it. The newest numbers before and after it.
local function changed(key, batch)
  local newest, _, sealed = revision(key)
  local number = math.max(batch, newest, sealed + 1)
  if number > newest then
    store(key, number, newest, math.max(sealed, number - 1))
  end
  return newest, number
end
-- As Revision::after_seal does it.
local function seal(key, number)
  local newest, before, sealed = revision(key)
  if number > sealed then
    store(key, newest, before, number)
  end
end

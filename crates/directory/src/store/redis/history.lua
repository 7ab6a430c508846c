-- The history of a hash tag. Stands behind revision.lua and before the scripts that use it.
-- 'history' is a stream: under 'number-sequence' whose set changed, and what it was before, empty where there was none.
-- 'kept' is 'newest begin rows bytes sequence': rows with the number 'begin' or a lower one may be missing.
local ROW_BYTES = 84
-- What there is with this newest number of the revision.
local function kept(keys, newest)
  local known, begin, rows, bytes, sequence =
    string.match(redis.call('GETRANGE', keys.kept, 0, 127), '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  local this = {
    begin = tonumber(begin) or 0, rows = tonumber(rows) or 0,
    bytes = tonumber(bytes) or 0, sequence = tonumber(sequence) or 0,
  }
  -- Rows are gone: Redis removes them where nothing changes.
  this.whole = redis.call('XLEN', keys.history) == this.rows
  if not this.whole then
    this.begin = math.max(this.begin, newest)
  end
  -- Another program changed the zone and kept no history, nor did it transfer the zone as it was under a number.
  if (tonumber(known) or 0) ~= newest then
    this.begin = math.max(this.begin, newest + 1)
  end
  return this
end
-- The same; what is left of rows that are not all there any more is removed.
local function mended(keys, newest)
  local this = kept(keys, newest)
  if not this.whole then
    redis.call('DEL', keys.history)
    this.rows, this.bytes = 0, 0
  end
  return this
end
local function keep(keys, newest, this)
  redis.call('SET', keys.kept, string.format('%.0f %.0f %.0f %.0f %.0f',
    newest, this.begin, this.rows, this.bytes, this.sequence))
end
-- Makes the history begin with a number, unless it begins later.
local function cut(keys, before, newest, number)
  local this = mended(keys, before)
  this.begin = math.max(this.begin, number)
  keep(keys, newest, this)
end
local function number_of(id)
  return tonumber(string.match(id, '^%d+'))
end
-- Notes that a set changed with 'number', where 'before' was the newest one, and what it was; nil where nobody knows.
-- 'most' has rows, bytes, oldest number and seconds.
local function note(keys, before, number, who, was, most)
  local this = mended(keys, before)
  this.sequence = this.sequence + 1
  local id = string.format('%.0f-%.0f', number, this.sequence)
  local added = was and redis.pcall('XADD', keys.history, id, 'who', who, 'was', was)
  if type(added) == 'string' then
    this.rows, this.bytes = this.rows + 1, this.bytes + #was + ROW_BYTES
  else
    redis.call('DEL', keys.history)
    this.begin, this.rows, this.bytes = number, 0, 0
  end
  while this.rows > 0 do
    local first = redis.call('XRANGE', keys.history, '-', '+', 'COUNT', 1)[1]
    local oldest = number_of(first[1])
    if this.rows <= most.rows and this.bytes <= most.bytes and oldest >= most.oldest then
      break
    end
    this.begin, this.rows = math.max(this.begin, oldest), this.rows - 1
    this.bytes = this.bytes - #first[2][4] - ROW_BYTES
    redis.call('XTRIM', keys.history, 'MAXLEN', this.rows)
  end
  redis.call('EXPIRE', keys.history, most.seconds)
  keep(keys, number, this)
end
-- The rows with numbers from one on, up to another or all.
local function rows_from(keys, from, to)
  return redis.call('XRANGE', keys.history, string.format('%.0f', from), to and string.format('%.0f', to) or '+')
end
-- What was in a set before it changes; nil where nobody knows.
local function was(held, is_listed, most_bytes)
  if not is_listed and held == '' then
    return ''
  end
  local is_sound = #held <= most_bytes and string.sub(held, 1, 21) == 'kithnet record set v1'
  if is_listed and is_sound then
    return held
  end
end

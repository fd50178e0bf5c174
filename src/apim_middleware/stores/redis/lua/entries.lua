-- Entries: a string for each key, and one for each tag, which names the generation the tag is in.
--
-- KEYS     one for each item: that of an entry, or of a tag to purge
-- ARGV[1]  milliseconds since 1970 to go by instead of the server's clock, or nothing
-- ARGV[2]  what the keys of tags begin with
-- ARGV[3]  what no generation's name began with
-- ARGV[4]  the key of purges
-- ARGV     then for each item: operation, milliseconds to live, value, how many tags, and the tags; of keep, the number
--          of a purge before those
--
-- An entry knows its tags and the generations it was kept in; it is there as long as all of them are. A tag lives as
-- long as the last entry that has it, so purging it is forgetting it, and whoever uses it next begins a generation.
--
-- Purges are numbered. A sorted set knows the last number of each tag that was among the last ones purged, and under
-- no name the number it began with, which is not that of any other: when the server has forgotten the set, and with it
-- what was purged, another begins that knows nothing of the numbers before.
--
-- A record: when it ends, how many tags it has, where the value begins; each tag and its generation; the value.
--
-- Answers for each item: the record or nothing, how many were added, or why that failed.

local call, pack, unpack, unpack_list = redis.call, struct.pack, struct.unpack, unpack

local now, linger = tonumber(ARGV[1]), 3600000 -- a clock for tests does not move with that which keys expire by
if not now then
  now, linger = 0, 0
end
local tags, fresh, number = ARGV[2], ARGV[3], 0

local function read(record)
  local ends, count, begin, at = unpack('<dI4I4', record)
  local named = {}
  for i = 1, 2 * count, 2 do
    named[i], named[i + 1], at = unpack('<I2c0I1c0', record, at)
  end
  assert(at == begin + 1, 'this is no entry')
  return ends, at, named
end

-- What is no record is told once and taken away: it would fail for as long as it lives.
local function current(key)
  local record = call('GET', key)
  if not record then
    return false
  end
  local fine, ends, at, named = pcall(read, record)
  if not fine then
    pcall(call, 'UNLINK', key)
    error(ends, 0)
  end
  for i = 1, #named, 2 do
    if call('GET', tags .. named[i]) ~= named[i + 1] then
      return false
    end
  end
  return ends > now and record, at
end

local function generation(tag, life)
  local key = tags .. tag
  local found = call('GET', key)
  if not found or #found > 255 then
    number = number + 1 -- what is purged and kept again in one script is in another generation too
    found = fresh .. number
    call('SET', key, found, 'PX', life)
  elseif call('PTTL', key) < life then
    call('SET', key, found, 'PX', life) -- with PEXPIRE before, a full server would take all that follows
  end
  return found
end

local purges, MOST, KNOWN = ARGV[4], 10000, 86400000

local function digits(value)
  return string.format('%.0f', value)
end

-- What is no set of purges is forgotten, as an order nobody knows.
local function last()
  local fine, found = pcall(call, 'ZRANGE', purges, -1, -1, 'WITHSCORES')
  if not fine or found.err then
    call('UNLINK', purges)
    return nil
  end
  return tonumber(found[2])
end

local function begin()
  local low, high = unpack('<I4I2', fresh)
  local first = digits(high * 4294967296 + low)
  call('ZADD', purges, first, '')
  call('PEXPIRE', purges, KNOWN)
  return first
end

local function note(tag, number)
  call('ZADD', purges, digits(number), redis.sha1hex(tag))
  local first = call('ZSCORE', purges, '')
  call('ZREMRANGEBYSCORE', purges, '(' .. first, digits(number - MOST))
  call('PEXPIRE', purges, KNOWN)
end

local function none_of(named, since)
  local number = last()
  if not (number and since) or since > number then
    return false
  end
  local first = tonumber(call('ZSCORE', purges, '') or nil)
  if not first or since < first or since < number - MOST then
    return false
  end
  if since < number and #named > 0 then
    local names = {}
    for i, tag in ipairs(named) do
      names[i] = redis.sha1hex(tag)
    end
    for _, found in ipairs(call('ZMSCORE', purges, unpack_list(names))) do
      if found and tonumber(found) > since then
        return false
      end
    end
  end
  return true
end

local OPERATIONS = {}

-- The whole record, for to cut it here would be to copy it once more.
function OPERATIONS.get(key)
  return (current(key))
end

function OPERATIONS.set(key, life, value, named)
  if life <= 0 then
    return call('UNLINK', key)
  end
  local record, begin = { '' }, 16
  for i, tag in ipairs(named) do
    local found = generation(tag, life + linger + 1000)
    record[i + 1] = pack('<I2c0I1c0', #tag, tag, #found, found)
    begin = begin + #record[i + 1]
  end
  record[1] = pack('<dI4I4', now + life, #named, begin)
  record[#record + 1] = value
  call('SET', key, table.concat(record), 'PX', life + linger)
  return 1
end

function OPERATIONS.add(key, life, value, named)
  if current(key) then
    return 0
  end
  OPERATIONS.set(key, life, value, named)
  return 1
end

function OPERATIONS.delete(key)
  return call('UNLINK', key)
end

function OPERATIONS.release(key, _, value)
  local record, at = current(key)
  return record and string.sub(record, at) == value and call('UNLINK', key) or 0
end

-- Where nothing can be noted for want of room, all that was noted goes, which leaves nothing to be kept since.
function OPERATIONS.purge(key)
  local number, gone = last(), call('UNLINK', key)
  if number and not pcall(note, string.sub(key, #tags + 1), number + 1) then
    call('UNLINK', purges)
  end
  return gone
end

-- The record, and after which purge that is so: none where none can be noted for want of room.
function OPERATIONS.look(key)
  local number = last()
  if number then
    return { current(key) or '', digits(number) }
  end
  local fine, first = pcall(begin)
  return { current(key) or '', fine and first or '' }
end

function OPERATIONS.keep(key, life, value, named)
  local since = table.remove(named, 1)
  if not none_of(named, string.find(since, '^%d+$') and tonumber(since)) then
    return 0
  end
  OPERATIONS.set(key, life, value, named)
  call('PEXPIRE', purges, KNOWN)
  return 1
end

local answers, at = {}, 5
for i, key in ipairs(KEYS) do
  local operation, life, value, count = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], tonumber(ARGV[at + 3])
  local named = {}
  for each = 1, count do
    named[each] = ARGV[at + 3 + each]
  end
  at = at + 4 + count
  local fine, answer = pcall(OPERATIONS[operation], key, life, value, named)
  if fine then
    answers[2 * i - 1], answers[2 * i] = 1, answer
  else
    answers[2 * i - 1], answers[2 * i] = 0, type(answer) == 'table' and answer.err or answer
  end
end
return answers

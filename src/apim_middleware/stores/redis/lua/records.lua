-- Documents with versions, and a feed of their changes.
--
-- KEYS[1]  hash: name -> document
-- KEYS[2]  sorted set: name by version, deleted ones too: the feed
-- KEYS[3]  sorted set: names, all with score 0, to be listed in order
-- KEYS[4]  sorted set: names of deleted records by version
-- KEYS[5]  hash: version (the latest), floor (deletions are known from there on)
-- ARGV[1]  microseconds since 1970 to begin versions with instead of the server's clock, or nothing
-- ARGV[2]  operation
-- ARGV     then what the operation wants
--
-- A name is kind, a null byte, id. Versions are told as text, for not every client keeps numbers that large.

local call = redis.call
local documents, feed, names, deleted, state = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local function text(number)
  return string.format('%.0f', number)
end

local function begin()
  if call('HEXISTS', state, 'version') == 0 then
    local now = tonumber(ARGV[1])
    if not now then
      local time = call('TIME')
      now = time[1] * 1000000 + time[2]
    end
    call('HSET', state, 'version', text(now), 'floor', text(now))
  end
end

local function version_of(name)
  if call('HEXISTS', documents, name) == 0 then
    return '0'
  end
  return text(tonumber(call('ZSCORE', feed, name)))
end

local function next_version(name)
  local version = text(call('HINCRBY', state, 'version', 1))
  call('ZADD', feed, version, name)
  return version
end

local function forget_deletions(most)
  local excess = call('ZCARD', deleted) - most
  if excess > 0 then
    local oldest = call('ZRANGE', deleted, 0, excess - 1, 'WITHSCORES')
    for at = 1, #oldest, 2 do
      call('ZREM', feed, oldest[at])
      call('ZREM', deleted, oldest[at])
      call('HSET', state, 'floor', text(tonumber(oldest[at + 1])))
    end
  end
end

local function rows(found)
  local told = {}
  for _, name in ipairs(found) do
    told[#told + 1] = name
    told[#told + 1] = text(tonumber(call('ZSCORE', feed, name)))
    told[#told + 1] = call('HGET', documents, name)
  end
  return told
end

local OPERATIONS = {}

function OPERATIONS.get(name)
  if call('HEXISTS', documents, name) == 0 then
    return {}
  end
  return rows({name})
end

function OPERATIONS.list(first, last, limit)
  return rows(call('ZRANGEBYLEX', names, first, last, 'LIMIT', 0, limit))
end

function OPERATIONS.put(name, if_match, document)
  local version = version_of(name)
  if if_match ~= '' and if_match ~= version then
    return {'conflict', version}
  end
  call('HSET', documents, name, document)
  call('ZADD', names, 0, name)
  call('ZREM', deleted, name)
  return {'done', next_version(name)}
end

function OPERATIONS.delete(name, if_match, most)
  local version = version_of(name)
  if if_match ~= '' and if_match ~= version then
    return {'conflict', version}
  end
  if version == '0' then
    return {'done', version}
  end
  call('HDEL', documents, name)
  call('ZREM', names, name)
  call('ZADD', deleted, next_version(name), name)
  forget_deletions(tonumber(most))
  return {'done', version}
end

function OPERATIONS.changes(after, limit)
  local version, floor = call('HGET', state, 'version'), call('HGET', state, 'floor')
  local asked = tonumber(after)
  if asked > 0 and (asked < tonumber(floor) or asked > tonumber(version)) then
    return {'lost', floor, version}
  end
  if asked > 0 then
    return rows(call('ZRANGEBYSCORE', feed, '(' .. after, '+inf', 'LIMIT', 0, limit))
  end
  local found = {}
  for _, name in ipairs(call('ZRANGE', feed, 0, -1)) do
    if call('HEXISTS', documents, name) == 1 then
      found[#found + 1] = name
    end
  end
  return rows(found)
end

function OPERATIONS.version()
  return {call('HGET', state, 'version')}
end

begin()
return OPERATIONS[ARGV[2]](unpack(ARGV, 3))

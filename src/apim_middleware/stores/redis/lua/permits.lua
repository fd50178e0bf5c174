#!lua flags=allow-oom
-- A permit is small and comes back soon; one that could not be renewed for want of room would be lent twice.
--
-- Counts who is in: a sorted set for each key, of holders by the microsecond their lease ends on the server's clock.
--
-- KEYS     one for each item
-- ARGV[1]  microseconds since 1970 to go by instead of the server's clock, or nothing
-- ARGV[2]  microseconds of a lease
-- ARGV     then for each item: operation, how many may be in at once, holder
--
-- Answers two numbers for each item: whether the holder is in, and how many are; or why that failed, and nothing.

local call = redis.call

local now, linger = tonumber(ARGV[1]), 3600000 -- a clock for tests does not move with that which keys expire by
if not now then
  local time = call('TIME')
  now, linger = time[1] * 1000000 + time[2], 1
end
local lease = tonumber(ARGV[2])

local function lent(key, holder)
  call('ZADD', key, now + lease, holder)
  local left = math.ceil(lease / 1000) + linger
  if call('PTTL', key) < left then
    call('PEXPIRE', key, left)
  end
  return 1, call('ZCARD', key)
end

local OPERATIONS = {}

function OPERATIONS.acquire(key, holder, most)
  call('ZREMRANGEBYSCORE', key, '-inf', now)
  local inside = call('ZCARD', key)
  if inside < tonumber(most) or call('ZSCORE', key, holder) then
    return lent(key, holder)
  end
  return 0, inside
end

function OPERATIONS.renew(key, holder)
  if call('ZSCORE', key, holder) then
    return lent(key, holder)
  end
  return 0, 0
end

OPERATIONS.restore = lent

function OPERATIONS.release(key, holder)
  local reply = redis.pcall('ZREM', key, holder)
  if type(reply) == 'table' and not string.find(reply.err, '^WRONGTYPE') then -- such a key lends nothing
    error(reply)
  end
  return 0, 0
end

local answers = {}
for i, key in ipairs(KEYS) do
  local fine, inside, count = pcall(OPERATIONS[ARGV[3 * i]], key, ARGV[3 * i + 2], ARGV[3 * i + 1])
  if fine then
    answers[2 * i - 1], answers[2 * i] = inside, count
  else
    answers[2 * i - 1], answers[2 * i] = type(inside) == 'table' and inside.err or inside, 0
  end
end
return answers

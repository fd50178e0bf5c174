-- Counts uses by the rules of the store in memory, in whole microseconds of the server's clock.
--
-- KEYS     one for each item of each call, in order; a key belongs to one limit
-- ARGV[1]  microseconds since 1970 to go by instead of the server's clock, or nothing
-- ARGV[2]  limits, seven doubles each: algorithm, quota, window, and four that depend on the algorithm
-- ARGV[3]  calls, as doubles: operation, how many items, and for each item its limit, units, and when it was counted
--
-- Answers for each call: five numbers for each item of a hit or peek, one for another operation, or why it failed.
-- Everything happens at one moment. What is read is kept at hand until all calls are done, then written once.

local floor, ceil, max, huge = math.floor, math.ceil, math.max, math.huge
local call, pack, unpack = redis.call, struct.pack, struct.unpack

local now, linger = tonumber(ARGV[1]), 3600000 -- a clock for tests does not move with that which keys expire by
if not now then
  local time = call('TIME')
  now, linger = time[1] * 1000000 + time[2], 1 -- expiry is rounded down to milliseconds
end

local function expiry(finish)
  return ceil((finish - now) / 1000) + linger
end

local function write(key, value, finish)
  if finish == huge then
    call('SET', key, value)
  else
    call('SET', key, value, 'PX', expiry(finish))
  end
end

-- Each algorithm reads a record as it stands now and writes it, and says of it how many units are left, how long
-- until all are, and how long until so many are that are not now. It adds units used now, or a correction.

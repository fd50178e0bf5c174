-- Counts uses by the rules of the store in memory, in whole microseconds of the server's clock.
--
-- KEYS     one for each item of each call, in order; a key belongs to one limit
-- ARGV[1]  microseconds since 1970 to go by instead of the server's clock, or nothing
-- ARGV[2]  limits, seven doubles each: algorithm, quota, window, and four that depend on the algorithm
-- ARGV[3]  calls, as doubles: operation, how many items, and for each item its limit, units, and when it was counted
--
-- Answers doubles in one string, five for each item of a hit or peek, one for another operation, and one below zero for
-- a call that failed; then why, for each that did.
-- Everything happens at one moment. What is read is kept at hand until all calls are done, then written once.

local floor, ceil, min, max, huge = math.floor, math.ceil, math.min, math.max, math.huge
local values = unpack
local call, pack, unpack = redis.call, struct.pack, struct.unpack

local now, linger = tonumber(ARGV[1]), 3600000 -- a clock for tests does not move with that which keys expire by
if not now then
  local time = call('TIME')
  now, linger = time[1] * 1000000 + time[2], 1 -- expiry is rounded down to milliseconds
end

-- Said as text, for redis.call takes long to write a number; most records of a batch end at the same moment.
local finish_said, expiry_said
local LONGEST = 1000000000000000 -- milliseconds: thirty thousand years, for the server refuses more than 64 bits hold

local function expiry(finish)
  if finish ~= finish_said then
    finish_said, expiry_said = finish, string.format('%.0f', min(ceil((finish - now) / 1000) + linger, LONGEST))
  end
  return expiry_said
end

local function write(key, value, finish)
  if finish == huge then
    call('SET', key, value)
  else
    call('SET', key, value, 'PX', expiry(finish))
  end
end

-- Doubles are packed and unpacked many at once, but no more than surely fit on the stack.

local MANY = 1000

local function doubles(text)
  local numbers = {}
  for at = 1, #text, 8 * MANY do
    local count = min(MANY, (#text - at + 1) / 8)
    local some = { unpack('<' .. string.rep('d', count), text, at) } -- and where the next one begins
    some[count + 1] = nil
    if count * 8 == #text then
      return some
    end
    for i = 1, count do
      numbers[#numbers + 1] = some[i]
    end
  end
  return numbers
end

local function packed(numbers, count)
  local texts = {}
  for from = 1, count, MANY do
    local to = min(from + MANY - 1, count)
    texts[#texts + 1] = pack('<' .. string.rep('d', to - from + 1), values(numbers, from, to))
  end
  return table.concat(texts)
end

-- Each algorithm reads a record as it stands now and writes it, and says of it how many units are left, how long
-- until all are, and how long until so many are that are not now. It adds units used now, or a correction.

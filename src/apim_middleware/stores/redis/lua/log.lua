-- Logs: a head of five doubles (units that count, entries that are over, entries, when the last was made, how far the
-- clock was set back in all), then the entries, two doubles each: when, and how many units. `fresh` are to be added.

local log = {}
local HEAD, ENTRY, CHUNK = 40, 16, 64
local CROWD = 1000

local function entries(record, key, from)
  local chunk, at, index = '', 1, from - 1
  return function()
    index = index + 1
    if index >= record.entries then
      return nil
    end
    if at > #chunk then
      local begin = HEAD + ENTRY * index
      chunk, at = call('GETRANGE', key, begin, begin + ENTRY * CHUNK - 1), 1
    end
    local moment, units
    moment, units, at = unpack('<dd', chunk, at)
    return index, moment, units
  end
end

function log.read(key, limit)
  local record = {
    key = key, used = 0, over = 0, entries = 0, last = 0, back = 0, fresh = 0, now = now, limit = limit, dirty = false,
  }
  local head = call('GETRANGE', key, 0, HEAD - 1)
  if head == '' then
    return record
  end
  record.used, record.over, record.entries, record.last, record.back = unpack('<ddddd', head)
  if now + record.back < record.last then -- the clock was set back: go on as if no time had passed
    record.back, record.dirty = record.last - now, true
  end
  record.now = now + record.back
  local over = record.over
  for index, moment, units in entries(record, key, record.over) do
    if moment + limit.window > record.now then
      break
    end
    record.used, record.over = record.used - units, index + 1
  end
  record.dirty = record.dirty or record.over - over >= CHUNK -- not to be walked by each hit that is refused
  return record
end

local function compacted(record, key)
  local live = call('GETRANGE', key, HEAD + ENTRY * record.over, HEAD + ENTRY * record.entries - 1)
  record.entries, record.over = record.entries - record.over, 0
  call('SET', key, string.rep('\0', HEAD) .. live)
end

local function appended(record, key)
  local last = record.entries - 1
  if last >= record.over and record.last == record.now then
    local place = HEAD + ENTRY * last
    local units = unpack('<d', call('GETRANGE', key, place + 8, place + 15))
    call('SETRANGE', key, place + 8, pack('<d', units + record.fresh))
  else
    call('SETRANGE', key, HEAD + ENTRY * record.entries, pack('<dd', record.now, record.fresh))
    record.entries, record.last = record.entries + 1, record.now
  end
end

function log.write(record, key, limit)
  if record.used <= 0 then
    call('DEL', key)
    return
  end
  if record.over >= CHUNK and record.over * 2 >= record.entries then
    compacted(record, key)
  end
  if record.fresh > 0 then
    appended(record, key)
  end
  call('SETRANGE', key, 0, pack('<ddddd', record.used, record.over, record.entries, record.last, record.back))
  call('PEXPIRE', key, expiry(record.last + limit.window - record.back))
end

function log.left(record, limit)
  return limit.quota - record.used
end

function log.reset(record, limit)
  if record.used <= 0 then
    return 0
  end
  return (record.fresh > 0 and record.now or record.last) + limit.window - record.now
end

function log.wait(record, limit, cost)
  local short = record.used + cost - limit.quota
  for _, moment, units in entries(record, record.key, record.over) do
    short = short - units
    if short <= 0 then
      return moment + limit.window - record.now
    end
  end
  return limit.window
end

function log.add(record, _, units)
  record.used, record.fresh = record.used + units, record.fresh + units
end

-- The first entry made at a moment or later, found by halving: its number, when it was made, and its units.
local function entry_from(record, moment)
  local low, high = record.over, record.entries
  local found, units
  while low < high do
    local middle = floor((low + high) / 2)
    local place = HEAD + ENTRY * middle
    local at, had = unpack('<dd', call('GETRANGE', record.key, place, place + ENTRY - 1))
    if at < moment then
      low = middle + 1
    else
      high, found, units = middle, at, had
    end
  end
  return low, found, units
end

local function inserted(record, index, moment, units)
  local place = HEAD + ENTRY * index
  local later = call('GETRANGE', record.key, place, HEAD + ENTRY * record.entries - 1)
  call('SETRANGE', record.key, place, pack('<dd', moment, units) .. later)
  record.entries, record.last = record.entries + 1, max(record.last, moment)
end

-- Forget the newest entries of which all was given back: the newest that counts says when all units are there again.
local function trim(record)
  while record.entries > record.over do
    local from = max(record.entries - CHUNK, record.over)
    local chunk = call('GETRANGE', record.key, HEAD + ENTRY * from, HEAD + ENTRY * record.entries - 1)
    for index = record.entries - 1, from, -1 do
      local moment, units = unpack('<dd', chunk, ENTRY * (index - from) + 1)
      if units > 0 then
        record.last = moment
        return
      end
      record.entries = index
    end
  end
end

function log.change(record, limit, units, counted)
  local moment = min(counted, record.now)
  local index, found, had = entry_from(record, moment)
  if found == moment then
    local has, place = max(had + units, 0), HEAD + ENTRY * index
    call('SETRANGE', record.key, place + 8, pack('<d', has))
    record.used = record.used + has - had
    if has == 0 and index == record.entries - 1 then
      trim(record)
    end
  elseif units > 0 and moment + limit.window > record.now then
    if record.entries - index > CROWD then -- what moves is bounded: it comes back with the next one
      call('SETRANGE', record.key, HEAD + ENTRY * index + 8, pack('<d', had + units))
    else
      inserted(record, index, moment, units)
    end
    record.used = record.used + units
  end
end

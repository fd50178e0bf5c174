-- Sliding windows: the end of the one that runs; units, first and last moment in it; the same of the one before.

local sliding = {}

-- Units of the window before that still count, as if used evenly from the first moment to the last.
local function still(units, first, last, moment)
  if units == 0 or moment >= last then
    return 0
  elseif moment < first then
    return units
  end
  return units - 1 - floor((units - 1) * (moment - first) / (last - first))
end

-- The first moment where no more than so many of them do.
local function moment_of(units, first, last, left)
  if left >= units - 1 then
    return first
  end
  return first + ceil((units - 1 - left) * (last - first) / (units - 1))
end

function sliding.read(key, limit)
  local window, value = limit.window, call('GET', key)
  local record = {
    finish = now - now % window + window, units = 0, first = 0, last = 0,
    before = 0, since = 0, till = 0, still = 0, limit = limit, dirty = false,
  }
  if not value then
    return record
  end
  local finish, units, first, last, before, since, till = unpack('<ddddddd', value)
  local latest = units > 0 and last or finish - window
  if now < latest then -- the clock was set back: go on as if no time had passed since the last use
    local back = latest - now
    finish, first, last, since, till = finish - back, first - back, last - back, since - back, till - back
    record.dirty = true
  end
  if now < finish then
    record.finish, record.units, record.first, record.last = finish, units, first, last
    record.before, record.since, record.till = before, since, till
  elseif units > 0 and now - window < last then
    record.finish, record.before, record.since, record.till = finish + window, units, first, last
  end
  record.still = still(record.before, record.since, record.till, now - window)
  return record
end

function sliding.write(record, key, limit)
  if record.units + record.still > 0 then
    local value = pack('<ddddddd', record.finish, record.units, record.first, record.last,
                       record.before, record.since, record.till)
    write(key, value, (record.units > 0 and record.last or record.till) + limit.window)
  else
    call('DEL', key)
  end
end

function sliding.left(record, limit)
  return limit.quota - record.units - record.still
end

function sliding.reset(record, limit)
  local last = record.units > 0 and record.last or record.still > 0 and record.till or now - limit.window
  return last + limit.window - now
end

function sliding.wait(record, limit, cost)
  local room = limit.quota - record.units - cost
  local moment
  if room >= 0 then
    moment = moment_of(record.before, record.since, record.till, room)
  else
    moment = moment_of(record.units, record.first, record.last, limit.quota - cost)
  end
  return moment + limit.window - now
end

function sliding.add(record, _, units)
  if record.units == 0 then
    record.first = now
  end
  record.units, record.last = record.units + units, now
end

function sliding.change(record, limit, units, counted)
  local begin, moment = record.finish - limit.window, min(counted, now)
  if moment >= begin then
    if record.units == 0 then
      record.first, record.last = moment, moment
    elseif units > 0 then
      record.last = max(record.last, moment)
    end
    record.units = max(record.units + units, 0)
  elseif moment >= begin - limit.window then
    if record.still == 0 then
      record.before, record.since, record.till = 0, moment, moment
    elseif units > 0 then
      record.till = max(record.till, moment)
    end
    record.before = max(record.before + units, 0)
    record.still = still(record.before, record.since, record.till, now - limit.window)
  end
end

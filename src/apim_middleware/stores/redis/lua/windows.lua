-- Windows of a clock or a calendar: units, begin, end.

local function of_clock(limit)
  if limit.window == huge then
    return 0, huge, huge
  end
  local begin = now - (now - limit[1]) % limit.window
  return begin, begin + limit.window, begin + 2 * limit.window
end

local function of_calendar(limit)
  for i = 1, 3 do
    if limit[i] <= now and now < limit[i + 1] then
      return limit[i], limit[i + 1], limit[i + 2] or limit[i + 1] + limit.window
    end
  end
  error('the clocks of client and server are too far apart for a calendar')
end

local function windows(bounds)
  local fixed = {}

  function fixed.read(key, limit)
    local value = call('GET', key)
    local used, began, ends = 0, 0, 0
    if value then
      used, began, ends = unpack('<ddd', value)
      if began <= now and now < ends then
        return { used = used, begin = began, finish = ends, limit = limit, dirty = false, expires = true }
      end
    end
    local begin, finish, next = bounds(limit)
    if now < began then -- the clock was set back: nobody knows how far, so on to the end of the next window
      return { used = used, begin = begin, finish = next, limit = limit, dirty = true }
    end
    return { used = 0, begin = begin, finish = finish, limit = limit, dirty = false }
  end

  function fixed.write(record, key)
    if record.used > 0 then
      local value = pack('<ddd', record.used, record.begin, record.finish)
      if record.expires then -- at the right moment already
        call('SET', key, value, 'KEEPTTL')
      else
        write(key, value, record.finish)
      end
    else
      call('DEL', key)
    end
  end

  function fixed.left(record, limit)
    return limit.quota - record.used
  end

  function fixed.reset(record)
    return record.used > 0 and record.finish - now or 0
  end

  function fixed.wait(record)
    return record.finish - now
  end

  function fixed.add(record, _, units)
    record.used = record.used + units
  end

  function fixed.change(record, _, units, counted)
    if counted >= record.begin then
      record.used = max(record.used + units, 0)
    end
  end

  return fixed
end

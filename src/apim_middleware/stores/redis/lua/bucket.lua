-- Buckets: what is to be worked off, and when that was. A unit is worth a window, a microsecond takes a quota off.

local bucket = {}

function bucket.read(key, limit)
  local value = call('GET', key)
  if not value then
    return { debt = 0, limit = limit, dirty = false }
  end
  local debt, at = unpack('<dd', value)
  if now < at then -- the clock was set back: go on as if no time had passed
    return { debt = debt, limit = limit, dirty = true }
  end
  return { debt = max(debt - (now - at) * limit.quota, 0), limit = limit, dirty = false }
end

function bucket.write(record, key, limit)
  if record.debt > 0 then
    write(key, pack('<dd', record.debt, now), now + record.debt / limit.quota)
  else
    call('DEL', key)
  end
end

function bucket.left(record, limit)
  return limit.most - ceil(record.debt / limit.window)
end

function bucket.reset(record, limit)
  return ceil(record.debt / limit.quota)
end

function bucket.wait(record, limit, cost)
  return ceil((record.debt - (limit.most - cost) * limit.window) / limit.quota)
end

function bucket.add(record, limit, units)
  record.debt = record.debt + units * limit.window
end

function bucket.change(record, limit, units, counted)
  local reach = limit.window * limit.most / limit.quota -- after this it has come back by itself
  if units < 0 then
    reach = min(reach, limit.window) -- and it may have before: no unit may come back twice
  end
  if counted > now - reach then
    record.debt = max(record.debt + units * limit.window, 0)
  end
end

local ALGORITHMS = { [0] = windows(of_clock), sliding, log, bucket, windows(of_calendar) }
local BUCKET = 3

-- A user who may not write is told before who only looks has an answer: that would pass for a server that is well.
if redis.acl_check_cmd and not redis.acl_check_cmd('SET', KEYS[1], '') then
  return redis.error_reply('NOPERM SET')
end

-- The limits, and the records at hand.

local limits = {}
local told = doubles(ARGV[2])
for at = 1, #told, 7 do
  local algorithm, quota, window, a, b, c, d = values(told, at, at + 6)
  local most = algorithm == BUCKET and a or quota
  limits[#limits + 1] = { rules = ALGORITHMS[algorithm], quota = quota, most = most, window = window, a, b, c, d }
end

local records, read = {}, {}

local function record_of(key, limit)
  local record = records[key]
  if not record then
    record = limit.rules.read(key, limit)
    records[key], read[#read + 1] = record, key
  end
  return record
end

local answers, said, problems = {}, 0, {}

local function say(word)
  said = said + 1
  answers[said] = word
end

-- One call at a time: the items of the one at hand, and what is done with them.

local keys, bound, units, moments, found = {}, {}, {}, {}, {}

local function left_of(i)
  return bound[i].rules.left(found[i], bound[i])
end

local function add(i)
  if units[i] > 0 then
    bound[i].rules.add(found[i], bound[i], units[i])
    found[i].dirty = true
  end
end

-- The client adds a microsecond, so that waiting in floats is enough; whole seconds are exact without.
local function told_exactly(span)
  return span % 1000000 == 0 and span - 1 or span
end

local function answer(i, allowed, left)
  local record, limit, cost, wait = found[i], bound[i], units[i], 0
  local reset = limit.rules.reset(record, limit)
  if cost > left then
    wait = cost > limit.most and huge or limit.rules.wait(record, limit, cost)
  end
  answers[said + 1] = allowed and 1 or 0
  answers[said + 2] = left > 0 and left or 0
  answers[said + 3] = told_exactly(reset)
  answers[said + 4] = told_exactly(wait)
  answers[said + 5] = record.now or now
  said = said + 5
end

-- Of a counter that stands twice in one call, the second use sees the first; so nobody knows before the end.
local function hit_in_turn(count)
  local before, allowed, begin, all = {}, {}, said, true
  for i = 1, count do
    before[i] = {}
    for name, value in pairs(found[i]) do
      before[i][name] = value
    end
    allowed[i] = units[i] <= left_of(i)
    if allowed[i] then
      add(i)
    end
    all = all and allowed[i]
    answer(i, allowed[i], left_of(i))
  end
  if all then
    return
  end
  for i = count, 1, -1 do
    for name, value in pairs(before[i]) do
      found[i][name] = value
    end
  end
  for i = 1, count do
    if allowed[i] then
      said = begin + 5 * (i - 1)
      answer(i, true, left_of(i))
    end
  end
  said = begin + 5 * count
end

local lefts = {}

local function hit(count)
  local all = true
  for i = 1, count do
    for j = 1, i - 1 do
      if found[i] == found[j] then
        return hit_in_turn(count)
      end
    end
    lefts[i] = left_of(i)
    all = all and units[i] <= lefts[i]
  end
  for i = 1, count do
    if all then
      add(i)
      answer(i, true, lefts[i] - units[i])
    else
      answer(i, units[i] <= lefts[i], lefts[i])
    end
  end
end

local function peek(count)
  for i = 1, count do
    local left = left_of(i)
    answer(i, units[i] <= left, left)
  end
end

local function settle(count)
  for i = 1, count do
    bound[i].rules.change(found[i], bound[i], units[i], moments[i])
    found[i].dirty = true
  end
  say(1)
end

local function assign(count) -- of no units: forget
  for i = 1, count do
    call('DEL', keys[i])
    records[keys[i]] = nil
    if units[i] > 0 then
      found[i] = record_of(keys[i], bound[i])
      add(i)
    end
  end
  say(1)
end

local OPERATIONS = { [0] = hit, peek, settle, assign }

local function perform(operation, count)
  for i = 1, count do
    found[i] = record_of(keys[i], bound[i])
  end
  OPERATIONS[operation](count)
end

-- What is wrong with a record concerns those who use it; anything else, such as a server that is full, all of them.
local function told_of(problem)
  local text = type(problem) == 'table' and problem.err or problem
  local kind = string.match(text, '^(%u+) ')
  if kind and kind ~= 'ERR' and kind ~= 'WRONGTYPE' then
    error({ err = text })
  end
  return text
end

local function fail(problem)
  say(-1)
  problems[#problems + 1] = problem
end

local at, number = 1, 0
told = doubles(ARGV[3])
while at <= #told do
  local operation, count = told[at], told[at + 1]
  at = at + 2
  for i = 1, count do
    number = number + 1
    keys[i], bound[i], units[i], moments[i] = KEYS[number], limits[told[at]], told[at + 1], told[at + 2]
    at = at + 3
  end
  local before = said
  local fine, problem = pcall(perform, operation, count)
  if not fine then
    said = before
    fail(told_of(problem))
  end
end

local written = 0
local function write_on()
  while written < #read do
    written = written + 1
    local key = read[written]
    local record = records[key]
    if record and record.dirty then
      record.dirty = false
      record.limit.rules.write(record, key, record.limit)
    end
  end
end

local lost
while written < #read do
  local fine, problem = pcall(write_on)
  if not fine then
    lost = lost or {}
    lost[read[written]] = told_of(problem)
  end
end

-- Say it all once more, and to those who used a record that could not be written, that they failed.
local function say_again()
  local before, reasons, from, number, index = answers, problems, 1, 0, 1
  answers, said, problems = {}, 0, {}
  while index <= #told do
    local operation, count, problem = told[index], told[index + 1]
    for i = number + 1, number + count do
      problem = problem or lost[KEYS[i]]
    end
    local failed = before[from] < 0
    local width = (failed or operation > 1) and 1 or 5 * count
    if failed then
      fail(table.remove(reasons, 1))
    elseif problem then
      fail(problem)
    else
      for i = from, from + width - 1 do
        say(before[i])
      end
    end
    from, number, index = from + width, number + count, index + 2 + 3 * count
  end
end

if lost then
  say_again()
end
return { packed(answers, said), values(problems) }

-- Changes a queue of jobs by operations of producers and of finished executions.
--
-- keys         jobs, ready, later, running, failures, dead, done, results, counters, wake
-- first, last  where the operations are in ARGV, each a letter and what belongs to it:
--   A id due record                       adds a job, unless there is one of this id
--   E id born outcome ttl run result      it has ended; how, is kept for `ttl` milliseconds, 0 for not at all
--   R id born due run failures            it has failed and is due again; ALONE: for a worker that has no other such
--   D id born expires most run failures   it has failed for good: a dead letter, one of at most `most`
--   G id born run                         it goes back to the front, as if it had not begun
--
-- An id has 16 bytes, a number 8, the lowest first, and an outcome is a letter.
-- `run` is the execution as `running` has it, behind its length in a byte: the number of the attempt, a blank, the
-- worker's token.
-- `born` is what the job's record has from its second byte to its ninth: when it was enqueued, which tells it from an
-- earlier job of the same id.
--
-- An attempt that has been given up, because its worker was taken for dead, changes nothing any more; with one
-- exception: a success counts until the next step after that attempt has been decided.
local ARGV = ARGV -- thousands of times looked at
local jobs, ready, later, running, failures = keys[1], keys[2], keys[3], keys[4], keys[5]
local dead, finished, results, counters, wake = keys[6], keys[7], keys[8], keys[9], keys[10]

-- A key that somebody else uses under this name must not stop a run in its middle.
local kinds = {
  'hash', 'list', 'zset', 'hash', 'hash', 'zset', 'zset', 'hash', 'hash', 'list',
}
for at, kind in ipairs(kinds) do
  local is = redis.call('TYPE', keys[at]).ok
  if is ~= kind and is ~= 'none' then
    error({err = 'WRONGTYPE a key of the queue is a ' .. is .. ' and not a ' .. kind})
  end
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local counts, woken = {}, false
local names = {
  s = 'succeeded', x = 'expired', d = 'discarded', R = 'retried', D = 'dead', G = 'released',
}

local function text(number) return string.format('%.0f', number) end

local ALONE = string.rep('\255', 8)

local function number_at(operation, at)
  local a, b, c, d, e, f, g, h = string.byte(operation, at, at + 7)
  return a + 256 * (b + 256 * (c + 256 * (d + 256 * (e + 256 * (f + 256 * (g + 256 * h))))))
end

-- Where the run is in those that have one: behind its length, a digit and more.
local run_of = {E = 35, R = 34, D = 42, G = 26}

-- The execution, and where what is behind it begins.
local function run_at(operation, at)
  local behind = at + 1 + string.byte(operation, at)
  return string.sub(operation, at + 1, behind - 1), behind
end

local function count(what) counts[what] = (counts[what] or 0) + 1 end

local function tries(id)
  local noted = redis.call('HGET', failures, id)
  return noted and tonumber(string.match(noted, '^%d+')) or 0
end

-- Whether the job that is there has not been decided about since this attempt, and is no later one of the same id.
local function is_open(id, run, operation)
  local record = redis.call('HGET', jobs, id)
  return record and string.sub(record, 2, 9) == string.sub(operation, 18, 25) and tries(id) < tonumber(string.match(run, '^%d+'))
end

-- Lua can pass some 8,000 values to a function, no more.
local function each(command, key, values)
  for from = 1, #values, 4000 do
    redis.call(command, key, unpack(values, from, math.min(from + 3999, #values)))
  end
end

local function fetched(key, ids)
  if #ids <= 4000 then return redis.call('HMGET', key, unpack(ids)) end
  local answers = {}
  for from = 1, #ids, 4000 do
    local some = redis.call('HMGET', key, unpack(ids, from, math.min(from + 3999, #ids)))
    for at = 1, #some do answers[from + at - 1] = some[at] end
  end
  return answers
end

-- One token is enough: who takes it and leaves jobs behind puts another one there.
local function push(side, ids)
  if #ids == 0 then return end
  each(side, ready, ids)
  woken = true
end

local function schedule(id, due)
  if due <= now then return push('RPUSH', {id}) end
  local earliest = redis.call('ZRANGEBYSCORE', later, 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if not earliest or due < tonumber(earliest) then woken = true end
  redis.call('ZADD', later, text(due), id)
end

-- The operations from this place in ARGV on, which are of these jobs.
local function add(ids, from)
  local there = fetched(jobs, ids)
  local added, pairs_of, outcomes, adds, news = {}, {}, {}, 0, 0
  for at, id in ipairs(ids) do
    if not there[at] then
      local operation = ARGV[from + at - 1]
      pairs_of[2 * news + 1] = id
      pairs_of[2 * news + 2] = string.sub(operation, 26)
      news = news + 1
      outcomes[news] = id
      local due = number_at(operation, 18)
      if due <= now then
        adds = adds + 1
        added[adds] = id
      else
        schedule(id, due)
      end
    end
  end
  if news == 0 then return end
  push('RPUSH', added)
  each('HSET', jobs, pairs_of)
  -- How an earlier job of the same id ended.
  if redis.call('EXISTS', finished) == 1 then
    each('ZREM', finished, outcomes)
    each('HDEL', results, outcomes)
  end
end

-- Outcomes that nobody is to know any more: twice as many as have come, so that they do not pile up.
local function forget_outcomes(come)
  local old = redis.call('ZRANGEBYSCORE', finished, '-inf', text(now), 'LIMIT', 0, 2 * come)
  if #old == 0 then return end
  each('ZREM', finished, old)
  each('HDEL', results, old)
end

local function finish(ids, from)
  local by = fetched(running, ids)
  local ended, tried, elsewhere, kept, ends = {}, {}, {}, 0, 0
  local sole
  for at, id in ipairs(ids) do
    local operation = ARGV[from + at - 1]
    local run, behind = run_at(operation, run_of.E)
    local is = by[at] == run
    if not is then
      is = is_open(id, run, operation)
      if is then elsewhere[#elsewhere + 1] = id end
    end
    if is then
      ends = ends + 1
      ended[ends] = id
      -- Mostly they are all first ones of one worker.
      if run ~= sole then
        if string.sub(run, 1, 2) == '1 ' then sole = run else tried[#tried + 1] = id end
      end
      local outcome = string.sub(operation, 26, 26)
      counts[outcome] = (counts[outcome] or 0) + 1
      local ttl = number_at(operation, 27)
      if ttl > 0 then
        redis.call('ZADD', finished, text(now + ttl), id)
        redis.call('HSET', results, id, outcome .. string.sub(operation, behind))
        kept = kept + 1
      end
    end
  end
  if ends == 0 then return end
  if kept > 0 then forget_outcomes(kept) end
  each('HDEL', jobs, ended)
  each('HDEL', running, ended)
  if #tried > 0 then each('HDEL', failures, tried) end
  -- A failover has lost that they were started, or taken over.
  if #elsewhere > 0 then
    each('ZREM', later, elsewhere)
    each('ZREM', dead, elsewhere)
    each('HDEL', failures, elsewhere)
  end
end

-- Whether this execution may still decide what becomes of its job, which is nowhere then.
local function decides(id, run, operation)
  local by = redis.call('HGET', running, id)
  if by then
    if by ~= run or redis.call('HEXISTS', jobs, id) == 0 then return false end
    redis.call('HDEL', running, id)
    return true
  end
  if not is_open(id, run, operation) then return false end
  redis.call('ZREM', later, id)
  redis.call('ZREM', dead, id)
  return true
end

local function again(id, operation)
  local run, behind = run_at(operation, run_of.R)
  if not decides(id, run, operation) then return end
  -- The failures come last: should one of these be forbidden, the record comes again, and decides anew.
  if string.sub(operation, 26, 33) == ALONE then
    redis.call('ZADD', later, -1, id)
    woken = true
  else
    schedule(id, number_at(operation, 26))
  end
  redis.call('HSET', failures, id, string.sub(operation, behind))
  count('R')
end

local function forget(id)
  redis.call('ZREM', dead, id)
  redis.call('HDEL', jobs, id)
  redis.call('HDEL', failures, id)
end

local function bury(id, operation)
  local run, behind = run_at(operation, run_of.D)
  if not decides(id, run, operation) then return end
  local expires, most = number_at(operation, 26), number_at(operation, 34)
  redis.call('ZADD', dead, text(expires), id)
  redis.call('HSET', failures, id, string.sub(operation, behind))
  count('D')
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', dead, '-inf', text(now), 'LIMIT', 0, 100)) do forget(old) end
  local over = redis.call('ZCARD', dead) - most
  if over > 0 then
    for _, old in ipairs(redis.call('ZRANGE', dead, 0, math.min(over, 1000) - 1)) do forget(old) end
  end
end

local function give_back(id, operation)
  local run = run_at(operation, run_of.G)
  if not decides(id, run, operation) then return end
  push('LPUSH', {id})
  count('G')
end

-- The letter of an operation that has all that is looked at here.
local function kind_of(operation)
  local kind = string.sub(operation, 1, 1)
  if kind == 'A' then return #operation >= 34 and kind end
  local at = run_of[kind]
  local length, digit = string.byte(operation, at or 0, at and at + 1)
  return digit and digit >= 48 and digit <= 57 and length > 0 and #operation >= at + length and kind
end

local together = {A = add, E = finish}
local singly = {R = again, D = bury, G = give_back}

local from = first
while from <= last do
  local kind, to = kind_of(ARGV[from]), from
  if not kind then break end
  if singly[kind] then
    singly[kind](string.sub(ARGV[from], 2, 17), ARGV[from])
  else
    -- Not the same job twice in one go: the second one must see what the first has done.
    local ids, seen = {}, {}
    while to <= last and kind_of(ARGV[to]) == kind do
      local id = string.sub(ARGV[to], 2, 17)
      if seen[id] then break end
      seen[id] = true
      to = to + 1
      ids[to - from] = id
    end
    to = to - 1
    together[kind](ids, from)
  end
  done(to)
  from = to + 1
end

for what, more in pairs(counts) do redis.pcall('HINCRBY', counters, names[what], more) end
if woken and redis.call('LLEN', wake) == 0 then redis.pcall('RPUSH', wake, '1') end
if from <= last then error({err = 'ERR an operation of a newer version, or a part of one'}) end

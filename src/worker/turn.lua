-- One round of a worker on a queue: says that the worker is alive, and hands it what there is to do.
--
-- KEYS  jobs, ready, later, running, failures, dead, done, results, counters, wake, workers, about, turns, gone
-- ARGV  1 token     the worker's
--       2 number    of this turn: one that comes late, behind a later one, does nothing
--       3 lease     in ms: until then the worker counts as alive
--       4 wanted    how many jobs at most
--       5 claims    how many jobs of dead workers at most; 0: it may not look
--       6 until     when it may no longer look: a turn that Redis comes to late, since it stood still, must not take those
--                   for dead who could not reach it meanwhile
--       7 cursor    where the last look for such jobs ended; 0 at first, or 'all' to look even if somebody has lately
--       8 about     JSON about the worker; '' leaves it, and what has expired, as it is
--       9 alone     1: it may have a job that may have no other such beside it
--      10 resync    1: what follows are the executions the worker has, each an id and an attempt
--
-- A turn that hands something out notes what, beside its number, until another one is not a resync: so a worker whose
-- answer was lost is told again.
--
-- {'gone', now}  the worker was taken for dead, and is to take a new token
-- {'late', now}
-- {'ok', now, next due or -1, cursor, {ready, later, running, dead, alone}, jobs, claimed, lost, own}
--   jobs and claimed, one text for each: id, attempt and the lengths of the next two, the worker before ('' if none; for
--   the one that is to be alone 'alone'), failures, record; in a resync the record is '' if there is no room for it
--   cursor: where the look is to go on; 0 at its end, and 'clean' if there was no need to look
--   lost: ids of executions that are no longer the worker's
--   own: what the look for dead workers' jobs has found to be the worker's, id and attempt of each
local jobs, ready, later, running, failures, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local done, results, wake = KEYS[7], KEYS[8], KEYS[10]
local workers, about, turns, gone = KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local token, number = ARGV[1], tonumber(ARGV[2])

local MOST_BYTES = 4 * 1024 * 1024 -- of records in one answer, about
local MOST_DUE = 1000 -- of what is due or has expired at once
local HOUR = 60 * 60 * 1000
local CLEAN = 'clean until' -- beside the tokens in `turns`
local NEVER = string.rep('\0', 8) -- when a job is due that was to be executed at once
-- Lua can pass some 8,000 values to a function.
local CHUNK = 1500

local function text(value) return string.format('%.0f', value) end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

if redis.call('ZSCORE', gone, token) then return {'gone', now} end
local noted_turn = redis.call('HGET', turns, token) or '0'
local _, digits = string.find(noted_turn, '^%d+')
if number <= tonumber(string.sub(noted_turn, 1, digits)) then return {'late', now} end
-- What was handed out last: a blank, and ids of 16 bytes.
local handed_out = ARGV[10] == '1' and string.sub(noted_turn, digits + 1) or ''

-- A key that somebody else uses under one of these names must stop it here, not between taking a job out of one
-- key and putting it into another.
for _, key in ipairs({jobs, running, failures}) do redis.call('HLEN', key) end
for _, key in ipairs({later, dead, done}) do redis.call('ZCARD', key) end
redis.call('LLEN', ready)
redis.call('LLEN', wake)

-- The first write: Redis refuses it while it has no memory left, and none after it.
redis.call('ZADD', workers, text(now + tonumber(ARGV[3])), token)
redis.call('HSET', turns, token, ARGV[2] .. handed_out)

-- In `later` what is below 0 is not due at a time: see `alone`.
local function due_by(set, moment)
  return redis.call('ZRANGEBYSCORE', set, 0, text(moment), 'LIMIT', 0, MOST_DUE)
end

local due = due_by(later, now)
if #due > 0 then
  redis.call('ZREM', later, unpack(due))
  redis.call('RPUSH', ready, unpack(due))
end

if ARGV[8] ~= '' then
  redis.call('HSET', about, token, ARGV[8])
  local old = due_by(gone, now - HOUR)
  if #old > 0 then
    redis.call('ZREM', gone, unpack(old))
    redis.call('HDEL', about, unpack(old))
    redis.call('HDEL', turns, unpack(old))
  end
  old = due_by(done, now)
  if #old > 0 then
    redis.call('ZREM', done, unpack(old))
    redis.call('HDEL', results, unpack(old))
  end
  old = due_by(dead, now)
  if #old > 0 then
    redis.call('ZREM', dead, unpack(old))
    redis.call('HDEL', jobs, unpack(old))
    redis.call('HDEL', failures, unpack(old))
  end
end

-- As many as can be told, however many are noted.
local MOST_TRIES = 4294967294
local function tries(noted)
  return noted and math.min(tonumber(string.match(noted, '^%d+')) or 0, MOST_TRIES) or 0
end

local first_execution = '1 ' .. token -- what most of them are
local function execution(attempt)
  if attempt == 1 then return first_execution end
  return text(attempt) .. ' ' .. token
end

-- An entry of `running`.
local function parts(value)
  local attempt, by = string.match(value, '^(%d+) (.*)$')
  return math.min(tonumber(attempt) or 1, MOST_TRIES + 1), by
end

-- The fields of a hash; none if it is empty, which is soon known and often so.
local function fetched(key, ids, from, to)
  if redis.call('HLEN', key) == 0 then return {} end
  return redis.call('HMGET', key, unpack(ids, from, to))
end

-- Calls `each` with id, record, entry of `running` and failures of some ids.
local function look_up(ids, each)
  for from = 1, #ids, CHUNK do
    local to = math.min(from + CHUNK - 1, #ids)
    local records = fetched(jobs, ids, from, to)
    local entries = fetched(running, ids, from, to)
    local noted = fetched(failures, ids, from, to)
    for at = from, to do
      each(ids[at], records[at - from + 1], entries[at - from + 1], noted[at - from + 1])
    end
  end
end

local function enter(entries)
  for from = 1, #entries, 2 * CHUNK do
    redis.call('HSET', running, unpack(entries, from, math.min(from + 2 * CHUNK - 1, #entries)))
  end
end

local taken, claimed, lost, own = {}, {}, {}, {}
local bytes, count = 0, 0
local sizes = {[taken] = 0, [claimed] = 0} -- to find out a list's length takes a search
local handed, hands = {}, 0
local function add(list, id, attempt, record, noted, by)
  local size = sizes[list] + 1
  if attempt == 1 and not noted and not by then
    list[size] = id .. '1 0 0\n' .. record
  else
    noted, by = noted or '', by or ''
    list[size] = id .. text(attempt) .. ' ' .. #by .. ' ' .. #noted .. '\n' .. by .. noted .. record
  end
  sizes[list] = size
  hands = hands + 1
  handed[hands] = id
  bytes = bytes + #record
end

-- What the worker has, and what it should have: its last answers may have been lost, or a failover may have lost
-- what Redis knew.
if ARGV[10] == '1' then
  local known, ids, again = {}, {}, {}
  for at = 11, #ARGV, 2 do
    ids[#ids + 1] = ARGV[at]
    known[ARGV[at]] = tonumber(ARGV[at + 1])
  end
  for from = 1, #ids, CHUNK do
    local to = math.min(from + CHUNK - 1, #ids)
    local entries = fetched(running, ids, from, to)
    for at = from, to do
      local id, entry = ids[at], entries[at - from + 1]
      local mine = execution(known[id])
      if entry then
        if entry ~= mine then lost[#lost + 1] = id end
      elseif redis.call('HEXISTS', jobs, id) == 1 then
        if tries(redis.call('HGET', failures, id)) < known[id] then
          again[#again + 1] = id
          again[#again + 1] = mine
        else
          lost[#lost + 1] = id
        end
      end
    end
  end
  enter(again)
  for at = 2, #handed_out, 16 do
    local id = string.sub(handed_out, at, at + 15)
    local entry = not known[id] and redis.call('HGET', running, id)
    local attempt, by = parts(entry or '')
    if by == token then
      local record = redis.call('HGET', jobs, id)
      if record then
        local fits = bytes == 0 or bytes + #record <= MOST_BYTES
        add(taken, id, attempt, fits and record or '', redis.call('HGET', failures, id))
      else
        redis.call('HDEL', running, id)
      end
    end
  end
end

-- What dead workers have left. To look through all that is running is a lot, if each worker does so all the time: it is
-- done when one has died, until somebody has seen everything, and once in a while.
local cursor, most = ARGV[7], tonumber(ARGV[5])
local looks = most > 0
if looks and now > tonumber(ARGV[6]) then
  looks, cursor = false, 'clean'
elseif looks then
  local died = redis.call('ZRANGEBYSCORE', workers, '-inf', '(' .. text(now), 'LIMIT', 0, 100)
  for _, other in ipairs(died) do
    redis.call('ZREM', workers, other)
    redis.call('ZADD', gone, text(now), other)
  end
  if #died > 0 then
    redis.call('HDEL', turns, CLEAN)
    cursor = '0'
  elseif cursor == 'all' then
    cursor = '0'
  elseif cursor == '0' and now < tonumber(redis.call('HGET', turns, CLEAN) or '0') then
    looks, cursor = false, 'clean'
  end
end
if looks then
  local alive, orphans, seen, steps = {}, {}, {}, 0
  repeat
    steps = steps + 1
    local step = redis.call('HSCAN', running, cursor, 'COUNT', 1000)
    cursor = step[1]
    for at = 1, #step[2], 2 do
      local id = step[2][at]
      local attempt, by = parts(step[2][at + 1])
      if by == token then
        own[#own + 1] = id
        own[#own + 1] = attempt
      else
        if by and alive[by] == nil then alive[by] = redis.call('ZSCORE', workers, by) ~= false end
        if not (by and alive[by]) and not seen[id] then
          seen[id] = true
          orphans[#orphans + 1] = id
        end
      end
    end
  until cursor == '0' or #orphans >= most or steps >= 10
  local mine, all = {}, true
  for _, id in ipairs(orphans) do
    if sizes[claimed] >= most or bytes >= MOST_BYTES then
      -- The next look begins anew, and finds the others.
      cursor, all = '0', false
      break
    end
    local record = redis.call('HGET', jobs, id)
    if record then
      local attempt, by = parts(redis.call('HGET', running, id))
      mine[#mine + 1] = id
      mine[#mine + 1] = execution(attempt)
      add(claimed, id, attempt, record, redis.call('HGET', failures, id), by)
    else
      redis.call('HDEL', running, id)
    end
  end
  enter(mine)
  if cursor == '0' and all then redis.call('HSET', turns, CLEAN, text(now + 10 * tonumber(ARGV[3]))) end
end

-- Few at first, since nobody knows how large the records are.
local wanted, chunk, rounds = tonumber(ARGV[4]), 4, 0

-- One in which workers have died, so often that the next death would be the last: if it is alone then, it was the
-- cause.
local tried = 0
while ARGV[9] == '1' and wanted > 0 and count == 0 and tried < 100 do
  tried = tried + 1
  local ids = redis.call('ZRANGEBYSCORE', later, '-inf', '(0', 'LIMIT', 0, 1)
  if #ids == 0 then break end
  redis.call('ZREM', later, ids[1])
  look_up(ids, function(id, record, entry, noted)
    if not record or entry or redis.call('ZSCORE', dead, id) then return end
    local attempt = tries(noted) + 1
    enter({id, execution(attempt)})
    add(taken, id, attempt, record, noted, 'alone')
    count = count + 1
  end)
end
local got_alone = count > 0

local seen = {}
while count < wanted and bytes < MOST_BYTES and rounds < 100 do
  rounds = rounds + 1
  local ids = redis.call('LPOP', ready, math.min(wanted - count, chunk))
  if not ids then break end
  local starts, at = {}, 0
  look_up(ids, function(id, record, entry, noted)
    -- An id may have been left behind, or be there twice.
    local stale = not record or entry or seen[id]
      or ((noted or string.sub(record, 10, 17) ~= NEVER)
        and (redis.call('ZSCORE', later, id) or redis.call('ZSCORE', dead, id)))
    if stale then return end
    seen[id] = true
    local attempt = tries(noted) + 1
    starts[at + 1], starts[at + 2] = id, execution(attempt)
    at = at + 2
    add(taken, id, attempt, record, noted)
    count = count + 1
  end)
  enter(starts)
  if chunk * bytes <= count * MOST_BYTES then chunk = math.min(4 * chunk, CHUNK) end
end

if ARGV[10] ~= '1' and hands > 0 then
  redis.call('HSET', turns, token, ARGV[2] .. ' ' .. table.concat(handed))
end

local alone = redis.call('ZCOUNT', later, '-inf', '(0')
local depths = {
  redis.call('LLEN', ready), redis.call('ZCARD', later), redis.call('HLEN', running), redis.call('ZCARD', dead), alone,
}
-- For the next idle worker. Who could not have one that is to be alone does not call for itself.
if depths[1] > 0 or (got_alone and alone > 0) then
  if redis.call('LLEN', wake) == 0 then redis.call('RPUSH', wake, '1') end
elseif depths[2] == 0 then
  redis.call('DEL', wake)
end
local next_due = tonumber(redis.call('ZRANGEBYSCORE', later, 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]) or -1
next_due = math.min(next_due, 2 ^ 53)
return {'ok', now, next_due, cursor, depths, taken, claimed, lost, own}

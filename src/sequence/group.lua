-- Applies consecutive records of one lane, each a group of commands or what a procedure makes of it, skipping those
-- applied before. In front of it stands `procedures`: functions by their names.
--
-- KEYS  lane, and the keys of the commands and procedures so far as they are known to lie in its hash slot
-- ARGV  first number, number the lane must have reached, lifetime in seconds;
--       how many procedures have records, and for each: its name, how many keys, keys;
--       then for each record: how many commands (negative: a key of theirs lies in another hash slot), and for
--       each: how many arguments (negative: an answer of 0 is a refusal), arguments;
--       or for some records at once: 'run', the name of a procedure, how many, and each of them
--
-- {'done', skipped}
-- {'gap', last}
-- {'refused', through, 1, error, skipped}  the record after `through` will never be taken
-- {'stopped', through, error, skipped}     the record after `through` met something that is not its fault
local ARGV = ARGV -- thousands of times looked at
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
local first, after = tonumber(ARGV[1]), tonumber(ARGV[2])
if last < after then return {'gap', last} end

-- Refusals by the server or by its rules, not by the record.
local others = {
  OOM = true, READONLY = true, MISCONF = true, NOREPLICAS = true, NOPERM = true, LOADING = true,
  MASTERDOWN = true, CLUSTERDOWN = true, CROSSSLOT = true, MOVED = true, ASK = true,
  TRYAGAIN = true, BUSY = true, NOAUTH = true,
}

-- Before Redis 7.2 a missing permission inside a script is a plain ERR.
local function is_other(failed)
  return others[string.match(failed, '^%S+')] or string.find(failed, 'The user executing the script', 1, true)
end

local function store(number)
  return redis.pcall('SET', KEYS[1], string.format('%.0f', number), 'EX', ARGV[3])
end

-- Who may write but not store the number would write again with every try.
local stored = store(last)
if stored.err then return stored end

local function remember(through)
  if through > last then store(through) end
end

local clustered
local function is_cluster()
  if clustered == nil then
    local info = redis.pcall('INFO', 'cluster')
    clustered = type(info) == 'string' and string.find(info, 'cluster_enabled:1', 1, true) ~= nil
  end
  return clustered
end

local at, number, skipped = 5, first, 0
local keys_of = {}
for _ = 1, tonumber(ARGV[4]) do
  local count = tonumber(ARGV[at + 1])
  keys_of[ARGV[at]] = {unpack(ARGV, at + 2, at + 1 + count)}
  at = at + 2 + count
end

-- Gives the records of one procedure that stand next to each other to it; answers if they end the batch.
local function run()
  local name, count = ARGV[at + 1], tonumber(ARGV[at + 2])
  local old = math.max(0, math.min(count, last - number + 1))
  local from = at + 3 + old
  at = at + 3 + count
  number = number + count
  skipped = skipped + old
  if old == count then return end
  local before = number - 1 - count + old
  if not procedures[name] then
    remember(before)
    return {'refused', before, 1, 'ERR no procedure of this name is known here', skipped}
  end
  local done = 0
  local function note(through) done = through - from + 1 end
  local fine, failed = pcall(procedures[name], keys_of[name], from, at - 1, note)
  if fine then return end
  -- Before Redis 7 it is a text that begins with where it happened.
  failed = type(failed) == 'table' and failed.err or string.gsub(failed, '^@?user_script:%s*%d+:%s*', '')
  local through = before + done
  if is_other(failed) and through == first + skipped - 1 then return {err = failed} end
  remember(through)
  if is_other(failed) then return {'stopped', through, failed, skipped} end
  return {'refused', through, 1, failed, skipped}
end

while at <= #ARGV do
  if ARGV[at] == 'run' then
    local ended = run()
    if ended then return ended end
  else
    local commands = tonumber(ARGV[at])
    local elsewhere = commands < 0
    commands = math.abs(commands)
    at = at + 1
    if number <= last then skipped = skipped + 1 end
    -- Redis would carry it out as long as both slots happen to be this node's, and not a day longer.
    if number > last and elsewhere and is_cluster() then
      remember(number - 1)
      return {'refused', number - 1, 1, 'CROSSSLOT a key is not in the hash slot of the queue', skipped}
    end
    for command = 1, commands do
      local arguments = tonumber(ARGV[at])
      local must = arguments < 0
      arguments = math.abs(arguments)
      if number > last then
        local answer
        if arguments <= 4000 then
          answer = redis.pcall(unpack(ARGV, at + 1, at + arguments))
        else
          -- Lua can pass some 8,000 arguments to a function, and would end here, what was done unnoted.
          answer = {err = 'ERR a command has more than 4000 arguments'}
        end
        local failed = type(answer) == 'table' and answer.err
        if not failed and must and answer == 0 then
          failed = 'EXISTS the same member is there already'
        end
        -- A key that this node of a cluster has not: one of the lane's slot is on its way to another.
        if failed and not elsewhere and string.find(failed, 'non local key', 1, true) then
          failed = 'TRYAGAIN the slot is on its way to another node'
          answer = {err = failed}
        end
        if failed then
          local other = is_other(failed)
          if other and number == first + skipped and command == 1 then return answer end
          remember(number - 1)
          if other then return {'stopped', number - 1, failed, skipped} end
          if command > 1 then
            failed = failed .. ' (command ' .. command .. ' of ' .. commands
              .. '; those before it were carried out)'
          end
          return {'refused', number - 1, 1, failed, skipped}
        end
      end
      at = at + 1 + arguments
    end
    number = number + 1
  end
end
remember(number - 1)
return {'done', skipped}

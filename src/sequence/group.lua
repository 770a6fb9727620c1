-- Applies consecutive records of one lane, each a group of commands, skipping those applied before.
--
-- KEYS  lane, and the keys of the commands so far as they are known to lie in its hash slot
-- ARGV  first number, number the lane must have reached, lifetime in seconds, then for each record:
--       how many commands (negative: a key of theirs lies in another hash slot), and for each: how
--       many arguments (negative: an answer of 0 is a refusal), arguments
--
-- {'done', skipped}
-- {'gap', last}
-- {'refused', through, 1, error, skipped}  the record after `through` will never be taken
-- {'stopped', through, error, skipped}     the record after `through` met something that is not its fault
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
local first, after = tonumber(ARGV[1]), tonumber(ARGV[2])
if last < after then return {'gap', last} end

-- Refusals by the server or by its rules, not by the record.
local others = {
  OOM = true, READONLY = true, MISCONF = true, NOREPLICAS = true, NOPERM = true, LOADING = true,
  MASTERDOWN = true, CLUSTERDOWN = true, CROSSSLOT = true, MOVED = true, ASK = true,
  TRYAGAIN = true, BUSY = true, NOAUTH = true,
}

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

local at, number, skipped = 4, first, 0
while at <= #ARGV do
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
        -- Before Redis 7.2 a missing permission inside a script is a plain ERR.
        local other = others[string.match(failed, '^%S+')]
          or string.find(failed, 'The user executing the script', 1, true)
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
remember(number - 1)
return {'done', skipped}

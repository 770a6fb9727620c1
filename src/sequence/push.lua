-- Pushes consecutive records of one lane to one list, skipping those it has pushed before.
--
-- KEYS  lane, list
-- ARGV  first number, number the lane must have reached, lifetime in seconds, LPUSH or RPUSH, values
--
-- {'done', skipped}                  all are in
-- {'gap', last}                      nothing was done: writes that were acknowledged are gone
-- {'refused', through, count, error} the list will never take these
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
local first, after, values = tonumber(ARGV[1]), tonumber(ARGV[2]), #ARGV - 4
if last < after then return {'gap', last} end
local skip = math.max(last - first + 1, 0)
if skip >= values then return {'done', values} end
local function store(number)
  local answer = redis.pcall('SET', KEYS[1], string.format('%.0f', number), 'EX', ARGV[3])
  return answer.err and answer
end
-- The number comes first: who may push but not store it would push again with every try.
local refusal = store(first + values - 1)
if refusal then return refusal end
-- Lua can pass some 8,000 values to a function, no more.
for at = 5 + skip, values + 4, 4000 do
  local answer = redis.pcall(ARGV[4], KEYS[2], unpack(ARGV, at, math.min(at + 3999, values + 4)))
  if type(answer) == 'table' and answer.err then
    store(last)
    -- Only the first push can fail: the key's type and the server's state do not change under us.
    if string.match(answer.err, '^WRONGTYPE') then
      return {'refused', first + skip - 1, values - skip, answer.err}
    end
    return answer
  end
end
return {'done', skip}

-- The beginning of each script that looks at a queue: its keys, in the order of `Keys`, are what they must be, or else
-- the answer says which one is not.
local kinds = {
  'hash', 'list', 'zset', 'hash', 'hash', 'zset', 'zset', 'hash', 'hash', 'list', 'zset', 'hash', 'hash', 'zset',
}
for at, kind in ipairs(kinds) do
  local is = redis.call('TYPE', KEYS[at]).ok
  if is ~= kind and is ~= 'none' then return {'wrong', {at, is}} end
end
local jobs, ready, later, running, failures = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local dead, finished, results, counters, wake = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local workers, about, gone = KEYS[11], KEYS[12], KEYS[14]

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

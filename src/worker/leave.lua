-- A worker ends, and says so.
--
-- KEYS  jobs, ready, later, running, failures, dead, done, results, counters, wake, workers, about, turns, gone
-- ARGV  token, and 1 if a turn of it may still be under way
local workers, about, turns, gone = KEYS[11], KEYS[12], KEYS[13], KEYS[14]
redis.call('ZREM', workers, ARGV[1])
redis.call('HDEL', about, ARGV[1])
if ARGV[2] == '1' then
  -- Or it would take jobs that nobody has then.
  local time = redis.call('TIME')
  redis.call('ZADD', gone, string.format('%.0f', tonumber(time[1]) * 1000), ARGV[1])
else
  redis.call('HDEL', turns, ARGV[1])
end
-- It may have left something behind, which somebody is to look for.
redis.call('HDEL', turns, 'clean until')
-- Whoever waits may be needed now.
if redis.call('LLEN', KEYS[2]) > 0 and redis.call('LLEN', KEYS[10]) == 0 then redis.call('RPUSH', KEYS[10], '1') end
return 1

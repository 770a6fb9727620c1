-- Makes dead letters wait in the queue again.
--
-- ARGV  of each: its id, what is known of its failures now, and what is to be known of them
local moved = 0
for at = 1, #ARGV, 3 do
  local id, before, after = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local is = redis.call('ZSCORE', dead, id) and redis.call('HEXISTS', jobs, id) == 1
  -- It may have been requeued, and have failed again, since it was looked at.
  if is and (redis.call('HGET', failures, id) or '') == before then
    redis.call('ZREM', dead, id)
    redis.call('HSET', failures, id, after)
    redis.call('RPUSH', ready, id)
    moved = moved + 1
  end
end
if moved > 0 and redis.call('LLEN', wake) == 0 then redis.call('RPUSH', wake, '1') end
return {'ok', moved}

-- Removes jobs that no worker has.
--
-- ARGV  'dead' if only dead letters are meant, or 'any'; then the jobs' ids
local removed = 0
for at = 2, #ARGV do
  local id = ARGV[at]
  local meant = ARGV[1] == 'any' or redis.call('ZSCORE', dead, id)
  if meant and redis.call('HEXISTS', running, id) == 0 then
    -- Its id may stay in `ready`: who takes it from there finds no job, and goes on.
    removed = removed + redis.call('HDEL', jobs, id)
    redis.call('HDEL', failures, id)
    redis.call('ZREM', later, id)
    redis.call('ZREM', dead, id)
  end
end
return {'ok', removed}

-- How much there is of everything.
--
-- ARGV  how much of a record tells when it was enqueued, in bytes
local front = false
-- Those at the front may have been taken already: the list is not always exact.
for _, id in ipairs(redis.call('LRANGE', ready, 0, 99)) do
  local record = redis.call('HGET', jobs, id)
  if record and redis.call('HEXISTS', running, id) == 0 then
    front = string.sub(record, 1, tonumber(ARGV[1]))
    break
  end
end
return {'ok', {
  now,
  {
    redis.call('LLEN', ready), redis.call('ZCARD', later), redis.call('HLEN', running), redis.call('HLEN', failures),
    redis.call('ZCARD', dead), redis.call('ZCOUNT', finished, '(' .. now, '+inf'),
    redis.call('ZCOUNT', workers, now, '+inf'),
  },
  -- What is below 0 waits for a worker, and not for a time.
  {redis.call('ZRANGEBYSCORE', later, 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2] or false, front},
  redis.call('HGETALL', counters),
}}

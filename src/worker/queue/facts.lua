-- All that there is of some jobs, at one moment.
--
-- ARGV  the most bytes of a record that are wanted; whether results are; then the jobs' ids
local most = tonumber(ARGV[1])
local facts = {}
for at = 3, #ARGV do
  local id = ARGV[at]
  local record = redis.call('HGET', jobs, id)
  local length = record and #record or 0
  if record and length > most then record = string.sub(record, 1, most) end
  local result = redis.call('HGET', results, id)
  local result_length = result and #result or 0
  if result and ARGV[2] == '0' then result = string.sub(result, 1, 1) end
  facts[#facts + 1] = {
    record, length, redis.call('HGET', running, id), redis.call('HGET', failures, id), redis.call('ZSCORE', dead, id),
    redis.call('ZSCORE', later, id), redis.call('ZSCORE', finished, id), result, result_length,
  }
end
return {'ok', {now, facts}}

-- Some ids of one of the queue's parts.
--
-- ARGV     the part's number among the keys; how many are wanted; where the ones before have ended, '' at the start:
--          the mark and the id of the last one
-- answers  {mark, id} of each, and where a scan goes on, if it does
local key, count, mark, last = KEYS[tonumber(ARGV[1])], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local kind, found = redis.call('TYPE', key).ok, {}

if kind == 'hash' then
  local scanned = redis.call('HSCAN', key, mark == '' and '0' or mark, 'COUNT', count)
  for at = 1, #scanned[2], 2 do found[#found + 1] = {'', scanned[2][at]} end
  return {'ok', {found, scanned[1] ~= '0' and scanned[1]}}
end

local from = 0
if kind == 'list' and last ~= '' then
  from = tonumber(mark) + 1
  if redis.call('LINDEX', key, from - 1) ~= last then
    -- The list has moved: jobs are taken from its front, and few are put there. If the last one is not there any
    -- more, neither is any that was in front of it.
    local places = redis.call('LPOS', key, last, 'COUNT', 0, 'MAXLEN', from + 1000)
    local limit = from
    from = 0
    for _, place in ipairs(places) do
      if place < limit or from == 0 then from = place + 1 end
    end
  end
elseif kind == 'zset' and last ~= '' then
  if redis.call('ZSCORE', key, last) == mark then
    from = redis.call('ZRANK', key, last) + 1
  else
    -- Those of the same score come once more.
    from = redis.call('ZCOUNT', key, '-inf', '(' .. mark)
  end
end

if kind == 'list' then
  for at, id in ipairs(redis.call('LRANGE', key, from, from + count - 1)) do
    found[at] = {tostring(from + at - 1), id}
  end
elseif kind == 'zset' then
  local ranked = redis.call('ZRANGE', key, from, from + count - 1, 'WITHSCORES')
  for at = 1, #ranked, 2 do found[#found + 1] = {ranked[at + 1], ranked[at]} end
end
return {'ok', {found, false}}

-- Who works, and who did.
--
-- ARGV     how many are wanted of each
-- answers  now; {token, until when it has its lease, what it has said of itself} of each; {token, when it was taken for
--          dead, the same} of each; and {token, how many jobs it has}, if those are not too many to be counted
local function with_about(key)
  local found, ranked = {}, redis.call('ZREVRANGE', key, 0, tonumber(ARGV[1]) - 1, 'WITHSCORES')
  for at = 1, #ranked, 2 do
    found[#found + 1] = {ranked[at], ranked[at + 1], redis.call('HGET', about, ranked[at])}
  end
  return found
end

local counts, counted = {}, {}
if redis.call('HLEN', running) <= 10000 then
  for _, by in ipairs(redis.call('HVALS', running)) do
    local token = string.match(by, ' (.+)$')
    if token then counts[token] = (counts[token] or 0) + 1 end
  end
  for token, count in pairs(counts) do counted[#counted + 1] = {token, count} end
end
return {'ok', {now, with_about(workers), with_about(gone), counted, redis.call('HLEN', running) <= 10000 and 1 or 0}}

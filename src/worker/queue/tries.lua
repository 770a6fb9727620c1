-- How often jobs have failed that are not dead: a part of all that have.
--
-- ARGV     where the scan goes on; how many are wanted
-- answers  {tries, id} of each, and where the scan goes on
local scanned, found = redis.call('HSCAN', failures, ARGV[1], 'COUNT', ARGV[2]), {}
for at = 1, #scanned[2], 2 do
  local tries = tonumber(string.match(scanned[2][at + 1], '^%d+'))
  if tries and not redis.call('ZSCORE', dead, scanned[2][at]) then found[#found + 1] = {tries, scanned[2][at]} end
end
return {'ok', {scanned[1], found}}

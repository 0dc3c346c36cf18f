-- Strike members off a sorted set, but only those that have not been renewed since they were looked at.
-- KEYS[1] the sorted set
-- ARGV member, score, member, score, …
-- Returns how many went.
local gone = 0
for i = 1, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if score and tonumber(score) == tonumber(ARGV[i + 1]) then
    gone = gone + redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return gone

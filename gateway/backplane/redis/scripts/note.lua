-- Record calls between two connections of one worker, for operators.
-- KEYS[1] inflight:{W}  zset, call id -> deadline
-- KEYS[2..] call:{W}:<id>, one per call
-- ARGV[1] how long a record may outlive its deadline in ms
-- then 7 per call: id · deadline (Redis ms) · from · agent · server_id · tool · sent (Redis ms)
-- Returns the number of calls.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local spare, longest = tonumber(ARGV[1]), 0
for i = 1, #KEYS - 1 do
  local key, a = KEYS[1 + i], (i - 1) * 7 + 1
  local keep = math.max(tonumber(ARGV[a + 2]) - now, 0) + spare
  longest = math.max(longest, keep)
  redis.call('HSET', key, 'state', 'local', 'from', ARGV[a + 3], 'agent', ARGV[a + 4], 'server_id', ARGV[a + 5],
    'tool', ARGV[a + 6], 'sent', ARGV[a + 7])
  redis.call('PEXPIRE', key, string.format('%.0f', keep))
  redis.call('ZADD', KEYS[1], ARGV[a + 2], ARGV[a + 1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - longest))
if redis.call('PTTL', KEYS[1]) < longest then
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', longest))
end
return #KEYS - 1

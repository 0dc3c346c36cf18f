-- A worker's beat: renew its lease and what it holds.
-- KEYS[1] worker:{W}    the lease, a hash
-- KEYS[2] owned:{W}     what W must be cleaned of when it dies
-- ARGV[1] lease in ms · ARGV[2] lifetime of owned in ms · ARGV[3..] field, value, …
-- Returns {fresh, now}: fresh is 1 if the lease had not been there, now is Redis time in ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fresh = 1 - redis.call('EXISTS', KEYS[1])
for i = 3, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[1], 'beat', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return {fresh, now}

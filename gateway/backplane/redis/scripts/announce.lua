-- Put a worker on the list of workers, and read the list.
-- KEYS[1] workers       zset, worker id -> lease deadline
-- ARGV[1] worker id · ARGV[2] lease in ms · ARGV[3] lifetime of the list in ms
-- Returns {id, deadline, id, deadline, …}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')

-- Mark calls that this worker's tool servers executed as answered. The publish to the caller is another command,
-- since its mailbox is in another slot.
-- KEYS[1] inflight:{W}  zset, call id -> deadline
-- KEYS[2..] call:{W}:<id>, one per call
-- ARGV 3 per call: id · how long the result is kept in ms · result
-- Returns how many records were there; an error from a read-only replica, which has done nothing.
local refused = redis.pcall('ZREM', KEYS[1], ARGV[1])
if type(refused) == 'table' and refused.err and string.find(refused.err, 'READONLY', 1, true) then return refused end
local found = 0
for i = 1, #KEYS - 1 do
  local key, a = KEYS[1 + i], (i - 1) * 3
  redis.pcall('ZREM', KEYS[1], ARGV[a + 1])
  if redis.call('EXISTS', key) == 1 then
    found = found + 1
    -- The request goes first, so that a full store has room for its result.
    redis.pcall('HDEL', key, 'message')
    redis.pcall('HSET', key, 'state', 'answered', 'result', ARGV[a + 3])
    redis.pcall('PEXPIRE', key, ARGV[a + 2])
  end
end
return found

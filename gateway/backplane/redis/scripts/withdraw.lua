-- Delete calls' records first, then tell the worker, so that recovery never starts a dead call.
-- KEYS[1] inflight:{W}  zset, call id -> deadline
-- KEYS[2] in:{W}        the mailbox, a channel
-- KEYS[3..] call:{W}:<id>, one per call
-- ARGV[1] PUBLISH or SPUBLISH · ARGV[2] message, or '' where nobody needs to be told · ARGV[3..] id, one per call
-- Returns how many heard it, or the error of a server that takes no writes: nobody is told then.
for i = 3, #KEYS do
  local gone = redis.pcall('DEL', KEYS[i])
  if type(gone) == 'table' and gone.err and string.find(gone.err, 'READONLY') then return gone end
  redis.pcall('ZREM', KEYS[1], ARGV[i])
end
if ARGV[2] == '' then return 0 end
return redis.call(ARGV[1], KEYS[2], ARGV[2])

-- Add a line to the event log. In one step: a connection that is lost in between must not leave it without its TTL.
-- KEYS[1] events        stream
-- ARGV[1] about how many lines are kept · ARGV[2] lifetime in ms · ARGV[3..] field, value, …
-- Returns the line's id.
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return id

-- Add lines to the event log. In one step: a connection that is lost in between must not leave it without its TTL.
-- KEYS[1] events        stream
-- ARGV[1] about how many lines are kept · ARGV[2] lifetime in ms
-- ARGV[3..] for each line: how many words follow, then field, value, …
-- Returns the last line's id.
local id
local at = 3
while at <= #ARGV do
  local last = at + tonumber(ARGV[at])
  id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, at + 1, last))
  at = last + 1
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return id

-- Add records to the audit, and take away those that are too many (about) or too old (all of them: people were promised so).
-- KEYS[1] audit         stream
-- ARGV[1] about how many records are kept · ARGV[2] for how long, in ms · ARGV[3..] records
-- Returns how many were added.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 3, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'record', ARGV[at])
end
redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f', now_ms - ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return #ARGV - 2

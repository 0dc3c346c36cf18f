-- Strike entries out of a book, but only those that still have the version at which they were looked at.
-- KEYS[1] the book      hash, name -> entry
-- ARGV name, version, name, version, …
-- Returns how many went.
local gone = 0
for i = 1, #ARGV, 2 do
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  if entry and tonumber(string.match(entry, '^{"version":(%d+)') or '') == tonumber(ARGV[i + 1]) then
    gone = gone + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return gone

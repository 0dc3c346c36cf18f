-- What came into a book after a version of it, where that can be told.
-- KEYS[1] the book      hash, name -> entry; the field '' holds the book's version
-- KEYS[2] changes:{…}   zset, '<version> <name>' -> version of the book at which the entry came in
-- ARGV[1] the version that the reader has
-- Returns {version, 0, {name, entry, …}}; {version, 1, {}} for who must read all of it: a book that is not open has version '0'.
local version = redis.call('HGET', KEYS[1], '') or '0'
if version ~= '0' and version == ARGV[1] then return {version, 0, {}} end
-- What the reader has must be a version of this very history, not of one that a failover has lost.
if version ~= '0' and #redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[1], ARGV[1]) > 0 then
  local found = {}
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf')) do
    local name = string.match(member, '^%d+ (.+)$')
    local entry = name and redis.call('HGET', KEYS[1], name)
    if entry then
      found[#found + 1] = name
      found[#found + 1] = entry
    end
  end
  return {version, 0, found}
end
return {version, 1, {}}

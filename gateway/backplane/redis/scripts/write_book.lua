-- Write one entry into a book, later than all that stands there.
-- KEYS[1] the book      hash, name -> entry; the field '' holds the book's version
-- KEYS[2] changes:{…}   zset, '<version> <name>' -> version of the book at which the entry came in
-- ARGV[1] name · ARGV[2] rest of the entry after its version, with the closing brace
-- ARGV[3] version that the entry must have (0: there is none, or it is removed), or '' for any
-- ARGV[4] lifetime of the changes in ms · ARGV[5] most changes
-- Returns the new version; nil if the entry has another one (nothing is changed then).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Versions are times, of clocks that may be years off. One that is further ahead than 20 years could never be outranked, so it
-- counts as none, here and for readers (books.py).
local function believed(version)
  return version and version <= now + 630720000000 and version or 0
end

local had, is_removed = 0, true
local before = redis.call('HGET', KEYS[1], ARGV[1])
if before then
  local ok, entry = pcall(cjson.decode, before)
  if ok and type(entry) == 'table' then
    had = believed(tonumber(entry.version))
    is_removed = entry.removed == true
  end
end
local expected = tonumber(ARGV[3])
if expected and expected ~= had and not (expected == 0 and is_removed) then return false end

local book = believed(tonumber(string.match(redis.call('HGET', KEYS[1], '') or '', '^%d+$') or ''))
local version = math.max(book + 1, had + 1, now)
local text = string.format('%.0f', version)
redis.call('HSET', KEYS[1], ARGV[1], '{"version":' .. text .. ARGV[2])
-- A book that is not open stays so: those who know what was in it open it (restore_book.lua).
if book > 0 then
  if redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('ZADD', KEYS[2], string.format('%.0f', book), string.format('%.0f', book))
  end
  redis.call('ZADD', KEYS[2], text, text .. ' ' .. ARGV[1])
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - ARGV[5])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
  redis.call('HSET', KEYS[1], '', text)
end
return version

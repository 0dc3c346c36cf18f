-- Put entries back into a book where they are newer than what stands there, and open it if it is not.
-- KEYS[1] the book      hash, name -> entry; the field '' holds the book's version
-- KEYS[2] changes:{…}   zset, '<version> <name>' -> version of the book at which the entry came in
-- ARGV[1] lifetime of the changes in ms · ARGV[2] most changes · ARGV[3] '0': more follows, so it is not opened yet
-- ARGV[4..] 3 per entry: name · version · entry
-- Returns {how many were put back, 1 if the book has another version now}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Versions are times, of clocks that may be years off. One that is further ahead than 20 years could never be outranked, so it
-- counts as none, here and for readers (books.py).
local function believed(version)
  return version and version <= now + 630720000000 and version or 0
end

local book = believed(tonumber(string.match(redis.call('HGET', KEYS[1], '') or '', '^%d+$') or ''))
local version, put = math.max(book + 1, now), {}
for i = 4, #ARGV, 3 do
  local had = 0
  local before = redis.call('HGET', KEYS[1], ARGV[i])
  if before then
    local ok, entry = pcall(cjson.decode, before)
    if ok and type(entry) == 'table' then had = believed(tonumber(entry.version)) end
  end
  local has = tonumber(ARGV[i + 1])
  if has > had then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
    version = math.max(version, has)
    put[#put + 1] = ARGV[i]
  end
end
if book > 0 and #put == 0 or book == 0 and ARGV[3] == '0' then return {#put, 0} end

local text = string.format('%.0f', version)
if redis.call('EXISTS', KEYS[2]) == 0 and book > 0 then
  redis.call('ZADD', KEYS[2], string.format('%.0f', book), string.format('%.0f', book))
end
for _, name in ipairs(put) do
  redis.call('ZADD', KEYS[2], text, text .. ' ' .. name)
end
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], '', text)
return {#put, 1}

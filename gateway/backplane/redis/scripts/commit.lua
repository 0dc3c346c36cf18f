-- Take a change of one agent if its revision is still the one that the change was decided on.
-- KEYS[1] rev:{A}       the agent's revision
-- KEYS[2] servers:{A}   hash, server_id -> row
-- KEYS[3] names:{A}     hash, listed name -> claim
-- KEYS[4] seen:{A}      hash, server_id -> what is remembered of it
-- KEYS[5] pins:{A}      hash, server_id -> its pinned definitions; has no TTL
-- KEYS[6] catalog:{A}   channel that hears the new revision
-- ARGV[1] PUBLISH or SPUBLISH · ARGV[2] expected revision · ARGV[3] lifetime in ms · ARGV[4] lifetime of seen in ms
-- ARGV[5] most entries of seen · ARGV[6..9] numbers of pairs for servers, names, seen, pins
-- ARGV[10..] the pairs: field, value ('' removes the field)
-- Returns the new revision, or nil if the revision was another one (nothing is changed then).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expected = tonumber(ARGV[2])
-- What is no revision counts as none, as it does for who reads it: else nobody could ever change this agent again.
local stored = redis.call('GET', KEYS[1])
stored = stored and #stored <= 15 and string.match(stored, '^%d+$') and tonumber(stored) or 0
if stored ~= expected then
  return false
end

-- The revision goes first: a store that refuses to write says so before anything is changed.
local revision = math.max(expected + 1, now)
local text = string.format('%.0f', revision)
redis.call('SET', KEYS[1], text, 'PX', ARGV[3])

-- In parts: Lua hands over no more than some thousand words at once.
local function in_parts(command, key, words)
  for first = 1, #words, 1000 do
    redis.call(command, key, unpack(words, first, math.min(first + 999, #words)))
  end
end

local at = 10
local function put(key, count, lifetime)
  local put, gone = {}, {}
  for i = at, at + 2 * count - 2, 2 do
    if ARGV[i + 1] == '' then
      gone[#gone + 1] = ARGV[i]
    else
      put[#put + 1] = ARGV[i]
      put[#put + 1] = ARGV[i + 1]
    end
  end
  at = at + 2 * count
  in_parts('HDEL', key, gone)
  in_parts('HSET', key, put)
  if lifetime and #put > 0 then
    redis.call('PEXPIRE', key, lifetime)
  end
end
put(KEYS[2], tonumber(ARGV[6]), ARGV[3])
put(KEYS[3], tonumber(ARGV[7]), ARGV[3])
put(KEYS[4], tonumber(ARGV[8]), ARGV[4])
put(KEYS[5], tonumber(ARGV[9]), nil)

-- Only the newest entries of seen are kept.
local most = tonumber(ARGV[5])
if ARGV[8] ~= '0' and redis.call('HLEN', KEYS[4]) > most then
  local entries, flat = {}, redis.call('HGETALL', KEYS[4])
  for i = 1, #flat, 2 do
    local ok, seen = pcall(cjson.decode, flat[i + 1])
    local last = 0
    if ok and type(seen) == 'table' then
      last = math.max(tonumber(seen.connected) or 0, tonumber(seen.disconnected) or 0)
    end
    entries[#entries + 1] = {flat[i], last}
  end
  table.sort(entries, function(a, b) return a[2] < b[2] end)
  for i = 1, #entries - most do
    redis.call('HDEL', KEYS[4], entries[i][1])
  end
end

redis.call(ARGV[1], KEYS[6], text)
return revision

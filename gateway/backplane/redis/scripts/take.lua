-- Units of some limits of one agent (or of one source), taken ahead of time by a worker: from all of the buckets or none.
-- KEYS[1] rate:{A} or source:…   hash: bucket -> the time (Redis, µs) at which it is full again; one that is not there is
-- ARGV[1] lifetime in ms · ARGV[2] units wanted · ARGV[3] units spent already · ARGV[4..] bucket, µs for a unit, units that fit in
-- Returns {granted, wait}: wait is the ms until there is a unit, 0 if there was one.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local granted, debt, wait = tonumber(ARGV[2]), tonumber(ARGV[3]), 0
local full, fields = {}, {}
for i = 4, #ARGV, 3 do
  local unit, fits = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local kept = string.match(redis.call('HGET', KEYS[1], ARGV[i]) or '', '^%d+$')  -- `nan` would be a number to Lua
  -- Never later than some windows from now: after a failover to a clock that is behind, nobody waits for it to catch up.
  local at = math.min(math.max(tonumber(kept or '') or 0, now) + debt * unit, now + 5 * fits * unit)
  local left = math.floor((now + fits * unit - at) / unit + 0.001)
  if left < 1 then
    wait = math.max(wait, math.ceil((at + unit - now - fits * unit) / 1000))
  end
  -- No more than half: others ask as well, and whoever comes right after another would always find nothing.
  granted = math.max(0, math.min(granted, math.max(math.ceil(left / 2), math.min(left, 1))))
  full[i] = at
end
if granted + debt == 0 then
  return {0, wait}
end
for i = 4, #ARGV, 3 do
  fields[#fields + 1] = ARGV[i]
  fields[#fields + 1] = string.format('%.0f', full[i] + granted * tonumber(ARGV[i + 1]))
end
local is_new = redis.call('HSET', KEYS[1], unpack(fields)) > 0
redis.call('PEXPIRE', KEYS[1], ARGV[1])
if is_new and redis.call('HLEN', KEYS[1]) > 64 then
  local kept = redis.call('HGETALL', KEYS[1])
  for i = 1, #kept, 2 do
    if tonumber(kept[i + 1]) <= now then
      redis.call('HDEL', KEYS[1], kept[i])
    end
  end
end
return {granted, wait}

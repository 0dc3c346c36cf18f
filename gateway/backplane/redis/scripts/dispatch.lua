-- Hand calls to a worker: lease, duplicate, deadline, record; then one publish of all that were recorded.
-- KEYS[1] worker:{W}    the lease
-- KEYS[2] inflight:{W}  zset, call id -> deadline
-- KEYS[3] in:{W}        the mailbox, a channel
-- KEYS[4..] call:{W}:<id>, one per call
-- ARGV[1] PUBLISH or SPUBLISH · ARGV[2] full or bare: in a bare record the message is empty; then 8 per call:
--   id · due (Redis ms, 0: none) · lifetime of the record in ms · from · agent · server_id · tool · message
-- Returns one verdict per call: ok, gone, dup, late, nosub, or 'refused <why>'.
-- Writing comes first, publishing last: a store that can't write delivers nothing, so 'not executed' stays true.
local FIELDS, BEFORE = 8, 2
local is_bare = ARGV[2] == 'bare'
local verdicts, accepted, messages = {}, {}, {}
local calls = #KEYS - 3

if redis.call('EXISTS', KEYS[1]) == 0 then
  for i = 1, calls do verdicts[i] = 'gone' end
  return verdicts
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local longest = 0
local refusal = nil

local function failure(reply)
  return type(reply) == 'table' and reply.err or nil
end

local function undo(i)
  redis.pcall('DEL', KEYS[3 + i])
  redis.pcall('ZREM', KEYS[2], ARGV[BEFORE + (i - 1) * FIELDS + 1])
end

local function record(i)
  local key, a = KEYS[3 + i], BEFORE + (i - 1) * FIELDS
  local due, keep = tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  if redis.call('EXISTS', key) == 1 then return 'dup' end
  if due > 0 and due <= now then return 'late' end
  -- A store that has refused one write refuses all of them: once a script has written, it may exceed the limit.
  if refusal then return refusal end
  local score = due > 0 and due or now + keep
  local err = failure(redis.pcall('HSET', key, 'state', 'sent', 'from', ARGV[a + 4], 'agent', ARGV[a + 5],
      'server_id', ARGV[a + 6], 'tool', ARGV[a + 7], 'sent', string.format('%.0f', now), 'message',
      is_bare and '' or ARGV[a + 8]))
    or failure(redis.pcall('PEXPIRE', key, ARGV[a + 3]))
    or failure(redis.pcall('ZADD', KEYS[2], string.format('%.0f', score), ARGV[a + 1]))
  if err then
    undo(i)
    refusal = 'refused ' .. err
    return refusal
  end
  longest = math.max(longest, keep)
  accepted[#accepted + 1] = i
  messages[#messages + 1] = ARGV[a + 8]
  return 'ok'
end

for i = 1, calls do verdicts[i] = record(i) end
if #accepted == 0 then return verdicts end

-- What nobody can wait for any more goes; the list lives as long as its longest record.
redis.pcall('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now - longest))
if redis.call('PTTL', KEYS[2]) < longest then redis.pcall('PEXPIRE', KEYS[2], longest) end

local receivers = redis.pcall(ARGV[1], KEYS[3], table.concat(messages))
local err = failure(receivers)
if err or receivers == 0 then
  for _, i in ipairs(accepted) do
    undo(i)
    verdicts[i] = err and ('refused ' .. err) or 'nosub'
  end
end
return verdicts

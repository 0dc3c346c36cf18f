-- Everything that is shared about one agent, in one instant.
-- KEYS[1] rev:{A}       the agent's revision
-- KEYS[2] servers:{A}   hash, server_id -> row
-- KEYS[3] names:{A}     hash, listed name -> claim
-- KEYS[4] seen:{A}      hash, server_id -> what is remembered of it
-- KEYS[5] pins:{A}      hash, server_id -> its pinned definitions
-- Returns {revision, now, {server_id, row, …}, {name, claim, …}, {server_id, seen, …}, {server_id, pins, …}};
-- revision is '0' for an unknown agent.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local revision = redis.call('GET', KEYS[1]) or '0'
local facts = {revision, now}
for part = 2, 5 do
  facts[#facts + 1] = redis.call('HGETALL', KEYS[part])
end
return facts

"""Changes that Redis makes by itself, because many callers make them at the same keys at once.

All other changes are made in Python, with WATCH. Redis runs a script without any other between its
commands. None of them works with Redis Cluster, since they reach keys that are not in ``KEYS``.
"""

CREATE = """
-- KEYS: the job, its events, the job of its idempotency key, the caller's queued jobs, all jobs of
-- the caller, the number of the latest job, active jobs, the turns of its slot, the bytes that jobs
-- keep by their caller and in all, ended jobs of the caller that keep some by the end of their time
-- ARGV: id, now, most queued jobs, prefix of jobs, 1 if there is an idempotency key, event,
-- the turn without its number, caller, bytes that the job keeps, most bytes of the caller, most
-- queued jobs of all callers, most bytes of all callers (-1 for no limit), 1 to change nothing, then
-- names and values of the job's fields
local function stored(key)
  return redis.call('HMGET', key, 'record', 'beat', 'state', 'fingerprint', 'expires_at')
end

local id = ARGV[1]
local same = stored(KEYS[1])
if same[1] then
  return {'there', same[1], same[2]}
end
if ARGV[5] == '1' then
  local earlier = redis.call('GET', KEYS[3])
  if earlier then
    local job = stored(ARGV[4] .. earlier)
    local ended = job[3] == 'succeeded' or job[3] == 'cancelled'
    -- The same as serve.jobs.store.transitions.replays.
    if job[1] and job[3] ~= 'failed' and not (ended and tonumber(job[5]) <= tonumber(ARGV[2])) then
      return {'same', job[1], job[2], job[4]}
    end
  end
end
local queued = redis.call('ZCARD', KEYS[4])
if queued >= tonumber(ARGV[3]) then
  return {'full', queued}
end
local bytes = tonumber(ARGV[9])
local function exceeds(kept, most)
  return bytes > 0 and tonumber(most) >= 0 and kept + bytes > tonumber(most)
end
local kept = tonumber(redis.call('HGET', KEYS[9], ARGV[8]) or '0')
if exceeds(kept, ARGV[10]) then
  local first = redis.call('ZRANGE', KEYS[11], 0, 0, 'WITHSCORES')
  return {'kept', kept, first[2] or ''}
end
local most = tonumber(ARGV[11])
if most >= 0 and redis.call('SCARD', KEYS[7]) >= most then
  local all = 0 -- counted only here, since those that run are active too
  for _, active in ipairs(redis.call('SMEMBERS', KEYS[7])) do
    if redis.call('HGET', ARGV[4] .. active, 'state') == 'queued' then
      all = all + 1
    end
  end
  if all >= most then
    return {'all full', all}
  end
end
if exceeds(tonumber(redis.call('GET', KEYS[10]) or '0'), ARGV[12]) then
  return {'all kept'}
end
if ARGV[13] == '1' then
  return {'room'}
end
if bytes > 0 then
  redis.call('HINCRBY', KEYS[9], ARGV[8], bytes)
  redis.call('INCRBY', KEYS[10], bytes)
end
if ARGV[5] == '1' then
  redis.call('SET', KEYS[3], id)
end
local number = redis.call('INCR', KEYS[6])
redis.call('HSET', KEYS[1], 'number', number, 'events', 1, unpack(ARGV, 14))
redis.call('XADD', KEYS[2], '1-0', 'event', ARGV[6])
redis.call('ZADD', KEYS[4], number, id)
redis.call('ZADD', KEYS[5], number, id)
redis.call('SADD', KEYS[7], id)
redis.call('HSET', KEYS[8], id, '[' .. number .. ',' .. ARGV[7])
return {'made'}
"""

COUNT = """
-- KEYS: the bytes that jobs keep by their caller, and in all; ARGV: caller, change
if redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2]) <= 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
redis.call('INCRBY', KEYS[2], ARGV[2])
"""

BEAT = """
-- ARGV: owner, prefix of jobs, then ids and attempts
-- Returns id and record of each job that the owner holds.
local held = {}
for n = 3, #ARGV, 2 do
  local key = ARGV[2] .. ARGV[n]
  local job = redis.call('HMGET', key, 'owner', 'attempt', 'record')
  if job[1] == ARGV[1] and job[2] == ARGV[n + 1] then -- nobody owns an ended job
    table.insert(held, ARGV[n])
    table.insert(held, job[3])
    redis.call('HINCRBY', key, 'beat', 1)
  end
end
return held
"""

SPEND = """
-- KEYS: the caller's requests of a minute; ARGV: how many are allowed, seconds to keep the count
-- Returns how many there are with this one, or 0 if there were enough.
if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then
  return 0
end
local spent = redis.call('INCR', KEYS[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return spent
"""

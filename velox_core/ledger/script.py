"""The Lua scripts of the Redis ledger: what must happen at once on the server, and nothing else.

- Every script takes its keys as KEYS, and all keys of a scope share one hash tag, so a cluster keeps them together.
- Checks come first and writes last: a script that fails on a key of the wrong type has changed nothing.
- Amounts and versions pass through as text; only epochs, the halt count and versions of a rebuild become numbers.
- `COMMIT` is the whole compare-and-set of a decision: one round trip, whatever the answer is.

Keys: `scope` (hash: epoch, halted = number of active halts), `content` (hash of one trading date: generation, version,
realised, charges, c:<intent>, p:<symbol>, d:<dedup key>), `changes` (hash: change id -> version, or 'x' for one that was
given up), `halts` (hash: a:<halt id> the latch, c:<halt id> its clear, each '<number> <record>'), `lease` (hash that
expires: holder, epoch), `marks` (hash).
"""

from __future__ import annotations

import hashlib

COMMITTED, CONFLICT, FENCED, LOST, GIVEN_UP = 1, 2, 3, 4, 5

# KEYS: scope content changes halts. ARGV: generation epoch expected_version change_id new_version kind number_of_deletes
# field... then field value ... The kind is '1' for what opens risk, '2' for a fact (in whatever the version), '0' else.
# The new content follows the version where the caller cannot know it.
COMMIT = """
local scope = redis.call('HMGET', KEYS[1], 'epoch', 'halted')
local head = redis.call('HMGET', KEYS[2], 'generation', 'version')
local done = redis.call('HGET', KEYS[3], ARGV[4])
if not (scope[1] and scope[2] and head[1] and head[2]) then return {4} end
if scope[1] ~= ARGV[2] then return {3, scope[1]} end
local same = head[1] == ARGV[1]
if same and done then
  if done == 'x' then return {5} end
  return {1, done}
end
local version, seen = ARGV[5], head[2] == ARGV[3]
if same and not seen and ARGV[6] == '2' then
  if not tonumber(head[2]) then return redis.error_reply('GARBAGE version is not a number') end
  version = string.format('%d', tonumber(head[2]) + 1)
elseif not same or not seen or (ARGV[6] == '1' and scope[2] ~= '0') then
  return {2, redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[4]), scope}
end
local deletes = tonumber(ARGV[7])
if deletes > 0 then redis.call('HDEL', KEYS[2], unpack(ARGV, 8, 7 + deletes)) end
redis.call('HSET', KEYS[2], 'version', version, unpack(ARGV, 8 + deletes))
redis.call('HSET', KEYS[3], ARGV[4], version)
if seen then return {1, version} end
return {1, version, redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[4]), scope}
"""

# KEYS: content changes. ARGV: change_id generation. The version the change got, '' when content was lost, or 'x': it
# never happened and, from now on, never will: a request that is still on its way finds the mark and changes nothing.
RESOLVE = """
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[2] then return '' end
local done = redis.call('HGET', KEYS[2], ARGV[1])
if done then return done end
redis.call('HSET', KEYS[2], ARGV[1], 'x')
return 'x'
"""

# KEYS: scope content halts.
SNAPSHOT = """
return {redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3]), redis.call('HMGET', KEYS[1], 'epoch', 'halted')}
"""

# KEYS: scope content halts. ARGV: field ('a:' or 'c:' and the halt's id), its counterpart ('c:' or 'a:'), record.
LATCH = """
local halted = tonumber(redis.call('HGET', KEYS[1], 'halted') or '0')
local head = redis.call('HMGET', KEYS[2], 'generation', 'version')
local counterpart = redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1
if not halted then return redis.error_reply('GARBAGE halted is not a number') end
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then return 0 end
redis.call('HSET', KEYS[3], ARGV[1], string.format('%d ', redis.call('HLEN', KEYS[3])) .. ARGV[3])
local step = 0
if string.sub(ARGV[1], 1, 2) == 'a:' then
  if not counterpart then step = 1 end
elseif counterpart then
  step = -1
end
redis.call('HSET', KEYS[1], 'halted', string.format('%d', halted + step))
if head[1] and tonumber(head[2]) then
  redis.call('HSET', KEYS[2], 'version', string.format('%d', tonumber(head[2]) + 1))
end
return 1
"""

# KEYS: scope content changes halts lease. ARGV: generation caller_epoch holder epoch_floor version_floor expire_ms
# number_of_halts (halt_id record)... then field value ...
REBUILD = """
local stored = redis.call('HGET', KEYS[1], 'epoch') or '0'
local epoch, caller = tonumber(stored), tonumber(ARGV[2])
if not epoch then return redis.error_reply('GARBAGE epoch is not a number') end
local lease = redis.call('HGET', KEYS[5], 'holder')
local taken = lease and ARGV[3] ~= '' and lease ~= ARGV[3] and epoch >= caller
if taken or (epoch > caller and (caller > 0 or lease)) then return {3, stored, lease or ''} end
redis.call('HLEN', KEYS[4])
local version = tonumber(ARGV[5])
if redis.call('TYPE', KEYS[2])['ok'] == 'hash' then
  version = math.max(version, tonumber(redis.call('HGET', KEYS[2], 'version') or '0') or 0)
end
local halts = tonumber(ARGV[7])
for i = 0, halts - 1 do
  redis.call('HSETNX', KEYS[4], 'a:' .. ARGV[8 + 2 * i], string.format('%d ', redis.call('HLEN', KEYS[4])) .. ARGV[9 + 2 * i])
end
local halted, fields, known = 0, redis.call('HKEYS', KEYS[4]), {}
for _, field in ipairs(fields) do known[field] = true end
for _, field in ipairs(fields) do
  if string.sub(field, 1, 2) == 'a:' and not known['c:' .. string.sub(field, 3)] then halted = halted + 1 end
end
redis.call('HSET', KEYS[1], 'halted', string.format('%d', halted),
  'epoch', string.format('%d', math.max(epoch, caller, tonumber(ARGV[4]))))
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[2], 'generation', ARGV[1], 'version', string.format('%d', version + 1))
for i = 8 + 2 * halts, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[3], '', '0')
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call('PEXPIRE', KEYS[3], ARGV[6])
return {1, redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[4]), redis.call('HMGET', KEYS[1], 'epoch', 'halted')}
"""

# KEYS: scope lease. ARGV: holder ttl_ms epoch_floor. {1, epoch}, or {0, holder, epoch, ttl_ms} when another one lives.
ACQUIRE = """
local held = redis.call('HMGET', KEYS[2], 'holder', 'epoch')
if held[1] and held[1] ~= ARGV[1] then return {0, held[1], held[2] or '', redis.call('PTTL', KEYS[2])} end
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0')
if not epoch then return redis.error_reply('GARBAGE epoch is not a number') end
local fresh = string.format('%d', math.max(epoch, tonumber(ARGV[3])) + 1)
redis.call('HSET', KEYS[1], 'epoch', fresh)
redis.call('HSET', KEYS[2], 'holder', ARGV[1], 'epoch', fresh)
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return {1, fresh}
"""

# KEYS: scope lease. ARGV: epoch holder ttl_ms. An expired lease that nobody took is ours again. -1: the store forgot it,
# or went back to an older epoch. 0: somebody else has it, or had it after us.
RENEW = """
local epoch = redis.call('HGET', KEYS[1], 'epoch')
local holder = redis.call('HGET', KEYS[2], 'holder')
if holder and holder ~= ARGV[2] then return 0 end
if not epoch or (tonumber(epoch) or 0) < tonumber(ARGV[1]) then return -1 end
if epoch ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], 'holder', ARGV[2], 'epoch', ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
"""

# KEYS: lease. ARGV: epoch.
RELEASE = """
if redis.call('HGET', KEYS[1], 'epoch') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

# KEYS: marks. ARGV: name value.
PUT_MARK = "return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])"
# KEYS: marks. ARGV: name.
GET_MARK = "return redis.call('HGET', KEYS[1], ARGV[1])"

ALL = (COMMIT, RESOLVE, SNAPSHOT, LATCH, REBUILD, ACQUIRE, RENEW, RELEASE, PUT_MARK, GET_MARK)
SHA = {text: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for text in ALL}

"""What Redis does in one step: two scripts in Lua.

Names, and all else that comes from outside, are arguments; nothing is written
into a script. Times are microseconds of the server's clock, amounts are USD.
"""

__all__ = ["EXCHANGE", "LEASE"]

_NOW = """
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local function whole(number) return string.format('%.0f', number) end
"""

# KEYS: heartbeats, loads, rests, sessions.
EXCHANGE = (
    _NOW
    + """
local worker, number = ARGV[2], tonumber(ARGV[3])
local quiet, epoch, cursor = tonumber(ARGV[5]), ARGV[6], ARGV[7]
local beats, loads, rests, sessions = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

-- who is alive, and what is under way
redis.call('ZREMRANGEBYSCORE', beats, '-inf', whole(now - quiet))
redis.call('ZREMRANGEBYSCORE', beats, '(' .. whole(now + quiet), '+inf')
if redis.call('ZSCORE', beats, worker) then
  local last = string.match(redis.call('HGET', loads, worker) or '', '^(%d+) ')
  if last and tonumber(last) >= number then return false end
end
redis.call('ZADD', beats, whole(now), worker)
redis.call('HSET', loads, worker, whole(number) .. ' ' .. ARGV[4])
local alive, others = {}, {}
for _, name in ipairs(redis.call('ZRANGE', beats, 0, -1)) do
  alive[name] = true
  if name ~= worker then
    others[#others + 1] = redis.call('HGET', loads, name) or ''
  end
end
if redis.call('HLEN', loads) > #others + 1 then
  for _, name in ipairs(redis.call('HKEYS', loads)) do
    if not alive[name] then redis.call('HDEL', loads, name) end
  end
end
redis.call('PEXPIRE', beats, whole(quiet / 500))
redis.call('PEXPIRE', loads, whole(quiet / 500))

-- rests
local number_of = {'version', 'at', 'since', 'until_', 'seconds', 'told', 'reopened',
                   'well', 'keep'}
local function read(written)
  if not written then return nil end
  local found, place = {}, 0
  for part in string.gmatch(written, '%S+') do
    place = place + 1
    local name = number_of[place]
    if name then found[name] = tonumber(part) else found.probe = part end
    if name and not found[name] then return nil end
  end
  if place ~= #number_of + 1 then return nil end
  return found
end
local function write(name, rest)
  local parts = {}
  for place, what in ipairs(number_of) do parts[place] = whole(rest[what]) end
  parts[#parts + 1] = rest.probe
  redis.call('HSET', rests, name, table.concat(parts, ' '))
end
local function goes_on(rest) return rest.well == 0 and rest.reopened == 0 end

redis.call('HSETNX', rests, 'epoch', epoch)
local place, versions = 11, {}
local function argument()
  place = place + 1
  return ARGV[place]
end
for turn = 1, tonumber(ARGV[11]) do
  local name, base = argument(), tonumber(argument())
  local new = {at = now - argument(), since = now - argument(),
               until_ = now + argument(), seconds = tonumber(argument()),
               told = tonumber(argument()), reopened = tonumber(argument()),
               well = tonumber(argument())}
  new.probe = argument() == '1' and worker or '-'
  new.keep = tonumber(argument())
  local old = read(redis.call('HGET', rests, name))
  local knew = not old or old.version == base
  new.version = math.max(now, 1, old and old.version + 1 or 1)
  versions[turn] = whole(new.version)
  if not knew and goes_on(old) and goes_on(new) then
    local first, second = new, old
    if old.at >= new.at then first, second = old, new end
    local longer = first
    if second.until_ > first.until_ then longer = second end
    local is_news = first == new or longer == new or new.seconds > old.seconds
    if longer ~= first or second.seconds > first.seconds then versions[turn] = '0' end
    first.until_, first.told = longer.until_, longer.told
    first.seconds = math.max(old.seconds, new.seconds)
    first.version = new.version
    if first == old then versions[turn] = '0' end
    if is_news then write(name, first) end
  elseif knew or new.at > old.at
         and not (goes_on(new) and not goes_on(old) and new.since <= old.at) then
    write(name, new)
  else
    versions[turn] = '0'
  end
end
local standing, all = {}, redis.call('HGETALL', rests)
for i = 1, #all, 2 do
  local name, rest = all[i], nil
  if name == 'epoch' then
    epoch = all[i + 1]
  else
    rest = read(all[i + 1])
    if not rest or rest.until_ + rest.keep < now
       or rest.until_ - now > math.max(rest.keep, 3600000000) + 60000000 then
      redis.call('HDEL', rests, name)
      rest = nil
    end
  end
  if rest then
    if rest.probe ~= '-' and not alive[rest.probe] then
      rest.probe, rest.version = '-', rest.version + 1
      write(name, rest)
    end
    local probed = rest.probe ~= '-' and rest.probe ~= worker
    standing[#standing + 1] = {name, whole(rest.version), whole(now - rest.since),
      whole(rest.until_ - now), whole(rest.seconds), whole(rest.told),
      whole(rest.reopened), whole(rest.well), probed and '1' or '0'}
  end
end
redis.call('PEXPIRE', rests, 7200000)

-- sessions
for _ = 1, tonumber(argument()) do
  local at = whole(now - argument())
  redis.call('XADD', sessions, 'MAXLEN', '~', ARGV[9], '*',
             'w', worker, 'at', at, 'n', argument())
end
if cursor == '' then cursor = whole(math.max(now - ARGV[8], 0) / 1000) .. '-0' end
local read_now = redis.call('XREAD', 'COUNT', ARGV[10], 'STREAMS', sessions, cursor)
redis.call('PEXPIRE', sessions, whole(ARGV[8] / 1000))
local entries = read_now and read_now[1] and read_now[1][2] or {}
return {epoch, others, versions, standing, whole(now), cursor, entries}
"""
)

# KEYS: the money of a budget. A worker's field: number, when it was heard, what it
# leased, spent and reserved, its calls, its pace.
LEASE = (
    _NOW
    + """
local purse, worker, number = KEYS[1], ARGV[2], tonumber(ARGV[3])
local budget, length = tonumber(ARGV[4]), tonumber(ARGV[5])
local told_period = tonumber(ARGV[6])
local spent, reserved = tonumber(ARGV[7]), tonumber(ARGV[8])
local calls, limit, pace = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local quiet = tonumber(ARGV[13])
local even, long_ago = tonumber(ARGV[14]), tonumber(ARGV[15])
local spare = tonumber(ARGV[16])

local period, age, ends = 0, 0, -1
local found = redis.call('HMGET', purse, 'period', 'age', 'last')
local kept, kept_age, last = tonumber(found[1] or ''), tonumber(found[2] or ''),
                             tonumber(found[3] or '')
if length > 0 then
  age = now
  if kept and kept_age and last then  -- a clock that is put back stands still
    period, age = kept, kept_age + math.max(now - last, 0)
  end
  period, age = period + math.floor(age / length), age % length
  ends = length - age
end
if kept ~= period then
  redis.call('DEL', purse)
  if told_period == period then redis.call('HSET', purse, 'floor', ARGV[12]) end
end
redis.call('HSET', purse, 'period', whole(period), 'age', whole(age),
           'last', whole(now))
if told_period ~= period then spent, reserved, calls, limit = 0, 0, 0, 0 end

local function parts_of(written)
  local parts = {}
  for part in string.gmatch(written or '', '%S+') do
    parts[#parts + 1] = tonumber(part)
  end
  return parts
end
local mine = parts_of(redis.call('HGET', purse, 'w' .. worker))
if #mine == 7 then
  if mine[1] >= number then return false end
  limit = math.min(limit, math.max(mine[3], spent + reserved))
end
local old = parts_of(redis.call('HGET', purse, 'old'))
local o_spent, o_reserved, o_calls = old[1] or 0, old[2] or 0, old[3] or 0
local bound, workers, paces = o_spent + o_reserved, 1, pace
local all = redis.call('HGETALL', purse)
for i = 1, #all, 2 do
  local field = all[i]
  if string.sub(field, 1, 1) == 'w' and field ~= 'w' .. worker then
    local its = parts_of(all[i + 1])
    if #its == 7 then
      local used, age = its[4] + its[5], now - its[2]
      o_spent, o_reserved = o_spent + its[4], o_reserved + its[5]
      o_calls = o_calls + its[6]
      if age < quiet then
        bound = bound + math.max(its[3], used)
        workers, paces = workers + 1, paces + its[7]
      else
        bound = bound + used
        if age > long_ago then
          redis.call('HDEL', purse, field)
          old = {(old[1] or 0) + its[4], (old[2] or 0) + its[5], (old[3] or 0) + its[6]}
          redis.call('HSET', purse, 'old', string.format('%.17g %.17g %.0f',
                                                         old[1], old[2], old[3]))
        elseif its[3] ~= used then
          redis.call('HSET', purse, field, string.format(
            '%.0f %.0f %.17g %.17g %.17g %.0f 0', its[1], its[2], used, its[4], its[5],
            its[6]))
        end
      end
    else
      redis.call('HDEL', purse, field)
    end
  end
end
local used = spent + reserved
local floor = tonumber(redis.call('HGET', purse, 'floor') or '0') or 0
local free = math.max(budget - math.max(o_spent + o_reserved + used, floor), 0)
local part = 1 / workers
if paces > 0 then part = even * part + (1 - even) * pace / paces end
local wanted = used + free * part * (1 - spare)
limit = math.max(limit, math.min(wanted, budget - bound))
redis.call('HSET', purse, 'w' .. worker, string.format(
  '%.0f %.0f %.17g %.17g %.17g %.0f %.17g',
  number, now, limit, spent, reserved, calls, pace))
if length > 0 then redis.call('PEXPIRE', purse, whole(length / 1000 + 3600000)) end
return {whole(period), whole(ends), string.format('%.17g', limit),
  string.format('%.17g', wanted), string.format('%.17g', o_spent),
  string.format('%.17g', o_reserved), whole(o_calls)}
"""
)

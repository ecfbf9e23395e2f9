"""What runs inside Redis: scripts that write rows only if they are not older, and only for the writer that may write.

A script runs alone, so what it compares and what it writes belong together. Writers are kept in a hash each:

    epoch      the newest run that took the writer over
    owner      mark of the object that did
    sequence   number of the newest portion; a portion that was delayed on its way is told by its lower number
    position, clock    how far the writer's rows have come

In a cluster one script sees one slot only: there the gate stands in the slot of the writers, and each row is written by
a script of its own that keeps the order of rows but sees no writer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

CHANGED, FENCED, LOST = -2, -1, -3
"""Answers of the scripts that write rows, in place of a count: the views registered changed; as `Written`."""

# Protobuf Timestamp -> seconds, nanoseconds. A number that takes ten bytes is negative; its complement is small enough
# for Lua's doubles to be exact. First the form that instants from 1978 to 3058 have: seconds of five bytes.
INSTANT = """
local byte = string.byte
local function instant(s)
  local t, a, b, c, d, e, u, f, g, h, i, j = byte(s, 1, 12)
  if t == 8 and e and e < 128 and d > 127 and c > 127 and b > 127 and a > 127 then
    local seconds = a + b * 128 + c * 16384 + d * 2097152 + e * 268435456 - 270549120
    if not u then return seconds, 0 end
    if f < 128 then return seconds, f end
    if g < 128 then return seconds, f + g * 128 - 128 end
    if h < 128 then return seconds, f + g * 128 + h * 16384 - 16512 end
    if i < 128 then return seconds, f + g * 128 + h * 16384 + i * 2097152 - 2113664 end
    return seconds, f + g * 128 + h * 16384 + i * 2097152 + j * 268435456 - 270549120
  end
  local seconds, nanos, i, n = 0, 0, 1, #s
  while i <= n do
    local tag, v, c, m, size = byte(s, i), 0, 0, 1, 0
    i = i + 1
    repeat
      local b = byte(s, i)
      i = i + 1
      size = size + 1
      if size < 10 then
        v = v + (b % 128) * m
        c = c + (127 - b % 128) * m
        m = m * 128
      end
    until b < 128
    if size == 10 then v = -c - 1 end
    if tag == 8 then seconds = v else nanos = v end
  end
  return seconds, nanos
end
local function older(old, new)
  local s, n = instant(old)
  local t, m = instant(new)
  return t < s or (t == s and m < n)
end
"""

# KEYS: views, writer, rows. ARGV: generation, epoch or "", owner, sequence.
_GUARD = """
if redis.call('HGET', KEYS[1], '') ~= ARGV[1] then return -2 end
if ARGV[2] ~= '' then
  local kept = redis.call('HMGET', KEYS[2], 'epoch', 'owner', 'sequence')
  if not kept[1] then return -3 end
  if kept[1] ~= ARGV[2] or kept[2] ~= ARGV[3] or kept[3] ~= ARGV[4] then return -1 end
end
local first = 2
"""

_UNGUARDED = """
local first = 0
"""

# ARGV: ... expiry ("" none, "keep" for ever, or milliseconds after the newest event), number of fields, fields, rows.
_HASHES = """
local expiry, count = ARGV[5], tonumber(ARGV[6])
local span = tonumber(expiry)
local stride = count + (span and 1 or 0)
local at, written, call = 6 + count, 0, redis.call
local stamp = ARGV[7]
local args = {}
for j = 1, count do args[2 * j] = ARGV[6 + j] end
local now
if span then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
for i = first + 1, #KEYS do
  local key, new = KEYS[i], ARGV[at + 1]
  local old = call('HGET', key, stamp)
  if not old or old == new or not older(old, new) then
    local left = span and call('PTTL', key)
    args[1] = key
    for j = 1, count do args[2 * j + 1] = ARGV[at + j] end
    call('HSET', unpack(args))
    if span then
      local ends = tonumber(ARGV[at + stride]) + span
      if left == -1 then ends = math.max(ends, now + span) end
      if left < 0 or now + left < ends then call('PEXPIREAT', key, string.format('%.0f', ends)) end
    elseif expiry == 'keep' then
      call('PERSIST', key)
    end
    written = written + 1
  end
  at = at + stride
end
return written
"""

_STRINGS = """
local span = tonumber(ARGV[5])
local stride = span and 2 or 1
local at, written, call, unpack8 = 7, 0, redis.call, struct.unpack
for i = first + 1, #KEYS do
  local key, new = KEYS[i], ARGV[at + 1]
  local old = call('GETRANGE', key, 0, 7)
  local write = old == ''
  if not write then
    local s, n = unpack8('>i4I4', old)
    local t, m = unpack8('>i4I4', new)
    write = t > s or (t == s and m >= n)
  end
  if write then
    if span then
      call('SET', key, new)
      call('PEXPIREAT', key, string.format('%.0f', tonumber(ARGV[at + 2]) + span))
    else
      call('SET', key, new)
    end
    written = written + 1
  end
  at = at + stride
end
return written
"""

# KEYS: views, writer. ARGV: generation or "", epoch, owner, sequence, acknowledged, position, clock.
_GATE = """
local kept = redis.call('HMGET', KEYS[2], 'epoch', 'owner', 'sequence')
if not kept[1] then return 'lost' end
local epoch, mine = tonumber(kept[1]), tonumber(ARGV[2])
if epoch > mine then return 'fenced' end
if epoch < mine then return 'lost' end
if kept[2] ~= ARGV[3] then return 'fenced' end
local sequence = tonumber(kept[3])
if sequence < tonumber(ARGV[5]) then return 'lost' end
if sequence > tonumber(ARGV[4]) then return 'fenced' end
if ARGV[1] ~= '' and redis.call('HGET', KEYS[1], '') ~= ARGV[1] then return 'changed' end
redis.call('HSET', KEYS[2], 'sequence', ARGV[4], 'position', ARGV[6], 'clock', ARGV[7])
return 'written'
"""

# KEYS: writer. ARGV: epoch, owner, least sequence. Gives the epoch that has it, then sequence, position, clock.
_TAKE_OVER = """
local kept = redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'position', 'clock')
if kept[1] and tonumber(kept[1]) > tonumber(ARGV[1]) then return {kept[1]} end
local sequence = string.format('%.0f', math.max(tonumber(kept[2] or '0'), tonumber(ARGV[3])) + 1)
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'owner', ARGV[2], 'sequence', sequence)
return {ARGV[1], sequence, kept[3] or '', kept[4] or ''}
"""

# KEYS: views. ARGV: generation that was seen, the new one, view, what to keep of it. Nothing when another was faster.
_REGISTER = """
if (redis.call('HGET', KEYS[1], '') or '') ~= ARGV[1] then return 0 end
return redis.call('HSET', KEYS[1], '', ARGV[2], ARGV[3], ARGV[4])
"""

# KEYS: views, rows. ARGV: generation, fields. Removes fields while the view is changing.
_CLEAR = """
if redis.call('HGET', KEYS[1], '') ~= ARGV[1] then return -2 end
for i = 2, #KEYS do
  redis.call('HDEL', KEYS[i], unpack(ARGV, 2))
end
return #KEYS - 1
"""

# KEYS: clock. ARGV: microseconds, kind. Digits are compared as text: they may be more than a double holds.
_CLOCK = """
local function less(a, b)
  local p, q = a:sub(1, 1) == '-', b:sub(1, 1) == '-'
  if p ~= q then return p end
  if p then a, b = b:sub(2), a:sub(2) end
  if #a ~= #b then return #a < #b end
  for i = 1, #a do
    if a:byte(i) ~= b:byte(i) then return a:byte(i) < b:byte(i) end
  end
  return false
end
local kept = redis.call('HMGET', KEYS[1], 'us', 'kind')
if kept[1] and kept[2] == ARGV[2] and less(ARGV[1], kept[1]) then return 0 end
redis.call('HSET', KEYS[1], 'us', ARGV[1], 'kind', ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the hash by which Redis knows it."""

    text: str
    sha: str


def _script(text: str) -> Script:
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


HASHES = _script(_GUARD + INSTANT + _HASHES)
STRINGS = _script(_GUARD + _STRINGS)
HASHES_OF_CLUSTER = _script(_UNGUARDED + INSTANT + _HASHES)
STRINGS_OF_CLUSTER = _script(_UNGUARDED + _STRINGS)
GATE = _script(_GATE)
TAKE_OVER = _script(_TAKE_OVER)
REGISTER = _script(_REGISTER)
CLEAR = _script(_CLEAR)
CLOCK = _script(_CLOCK)

ALL = (HASHES, STRINGS, HASHES_OF_CLUSTER, STRINGS_OF_CLUSTER, GATE, TAKE_OVER, REGISTER, CLEAR, CLOCK)

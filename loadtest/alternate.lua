-- Two threads that take turns: while it is the turn of one, the other sends nothing. Arguments: for each of them host,
-- port, path and body, then the milliseconds of a turn and of its beginning. An answer counts when it comes in its
-- thread's turn, but not at the turn's beginning, when those to the other are on their way still.

local ffi = require("ffi")
ffi.cdef [[
  struct alternate_time { long s; long ns; };
  int clock_gettime(int clock, struct alternate_time *now);
]]
local CLOCK_MONOTONIC = 1
local now = ffi.new("struct alternate_time")
local threads = {}

counts = {}

local function ms()
  ffi.C.clock_gettime(CLOCK_MONOTONIC, now)
  return tonumber(now.s) * 1e3 + tonumber(now.ns) / 1e6
end

function setup(thread)
  thread:set("place", #threads)
  table.insert(threads, thread)
end

function init(args)
  local host, port, path, body = unpack(args, 4 * place + 1, 4 * place + 4)
  turn, beginning = tonumber(args[9]), tonumber(args[10])
  local headers = { ["Host"] = host .. ":" .. port, ["Content-Type"] = "application/json" }
  said = wrk.format("POST", path, headers, body)
  wrk.thread.addr = wrk.lookup(host, port)[1]
end

function request()
  return said
end

function delay()
  local since = ms() % (2 * turn) - place * turn
  if since >= 0 and since < turn then
    return 0
  end
  return math.ceil(since < 0 and -since or 2 * turn - since)
end

function response(status)
  if status ~= 200 then
    bad = status
  end
  local at = ms()
  local since = at % (2 * turn) - place * turn
  if since >= beginning and since < turn then
    local pair = math.floor(at / (2 * turn))
    counts[pair] = (counts[pair] or 0) + 1
  end
end

function done()
  for place, thread in ipairs(threads) do
    local found = {}
    for pair, count in pairs(thread:get("counts")) do
      table.insert(found, string.format("%d:%d", pair, count))
    end
    print("ALTERNATE", place, thread:get("bad") or 200, table.concat(found, ","))
  end
end

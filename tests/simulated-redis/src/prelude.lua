-- Makes the environment of the scripts, and returns the function that runs one.
--
-- Each script gets an environment of its own, so that no script leaves anything for the next one.
-- Functions that depend on a clock, on random numbers or on files are missing.

local call, pcall_redis, describe, sha1hex, error_of = ...

local redis = {
  call = call,
  pcall = pcall_redis,
  sha1hex = sha1hex,
  status_reply = function(text) return {ok = text} end,
  error_reply = error_of,
  log = function() end,
  replicate_commands = function() return true end,
  LOG_DEBUG = 0,
  LOG_VERBOSE = 1,
  LOG_NOTICE = 2,
  LOG_WARNING = 3,
}

local maths = {}
for name, value in pairs(math) do
  if name ~= 'random' and name ~= 'randomseed' then maths[name] = value end
end

-- What a script sees of an error: a table, as in Redis.
local function shown(fine, ...)
  if not fine then
    local problem = ...
    if type(problem) == 'userdata' then return false, describe(problem) end
  end
  return fine, ...
end

local base = {
  _VERSION = _VERSION,
  assert = assert,
  error = error,
  getmetatable = getmetatable,
  ipairs = ipairs,
  math = maths,
  next = next,
  pairs = pairs,
  pcall = function(...) return shown(pcall(...)) end,
  rawequal = rawequal,
  rawget = rawget,
  rawset = rawset,
  redis = redis,
  select = select,
  setmetatable = setmetatable,
  string = string,
  table = table,
  tonumber = tonumber,
  tostring = tostring,
  type = type,
  unpack = unpack,
}

local strict = {
  __index = function(_, name)
    local value = base[name]
    if value == nil then
      error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
    end
    return value
  end,
  __newindex = function(_, name)
    error("Attempt to modify a readonly table: global variable '" .. tostring(name) .. "'", 2)
  end,
}

-- Returns the line of the script where an error was raised, and whether the environment raised it.
local function line()
  local is_strict = false
  -- Below are this function and the handler, and then functions of the server.
  for level = 4, 6 do
    local _, place = pcall(error, '', level)
    local number = string.match(place, '^user_script:(%d+): $')
    if number then return number, is_strict end
    is_strict = is_strict or string.find(place, '^prelude:') ~= nil
  end
  return nil, is_strict
end

local function handle(problem)
  local result = problem
  if type(problem) == 'userdata' then
    result = describe(problem)
  elseif type(problem) ~= 'table' then
    result = {err = tostring(problem)}
  end
  if type(result.err) ~= 'string' then result = {err = 'unknown error'} end
  local number, is_strict = line()
  return {result.err, result == problem or type(problem) == 'userdata', is_strict, number}
end

return function(script, keys, arguments)
  setfenv(script, setmetatable({KEYS = keys, ARGV = arguments}, strict))
  return xpcall(script, handle)
end

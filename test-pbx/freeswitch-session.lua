-- Stands in for FreeSWITCH: the objects that mod_lua gives to a script, as far as freeswitch-voicemail.lua uses them.
-- Arguments: the script, the global variables as NAME=VALUE up to `--`, then the channel's in the same way. The recording is
-- copied from the file that the environment names (none: the caller hung up before the beep).
local globals, channel, target = {}, {}, nil
target = globals
for at = 2, #arg do
  if arg[at] == "--" then
    target = channel
  else
    local name, value = arg[at]:match("^([%w_]+)=(.*)$")
    target[name] = value
  end
end

local hung_up = false

freeswitch = {
  getGlobalVariable = function (name) return globals[name] or "" end,
  consoleLog = function (level, message) io.stderr:write(level, ": ", message) end,
  API = function ()
    return {
      executeString = function (_, command)
        -- `bgapi` hands the rest to a thread, where `system` passes it to a shell.
        os.execute((command:gsub("^bgapi system ", "")))
      end
    }
  end
}

session = {
  getVariable = function (_, name) return channel[name] end,
  answer = function () end,
  sleep = function () end,
  ready = function () return not hung_up end,
  hangup = function (_, cause) hung_up = true; io.stderr:write("hangup: ", cause, "\n") end,
  streamFile = function () hung_up = os.getenv("SOUND") == nil end,
  recordFile = function (_, path)
    local from, to = io.open(os.getenv("SOUND"), "rb"), assert(io.open(path, "wb"))
    to:write(from:read("*a"))
    to:close()
    hung_up = true
  end
}

dofile(arg[1])

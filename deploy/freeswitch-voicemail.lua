-- Takes a message for voicemaild: announcement, beep, recording. Called from the dialplan with <action application="lua" .../>.
-- The recording and who it is for go to a spool folder, which voicemail-spool uploads. Nothing that a caller sends becomes part of
-- a command or of a file's name.

local function global (name, default)
  local value = freeswitch.getGlobalVariable(name)
  if value == nil or value == "" then return default end
  return value
end

local SPOOL = global("voicemaild_spool", "/var/spool/voicemaild")
local UPLOADER = global("voicemaild_uploader", "/usr/local/lib/voicemaild/voicemail-spool")
local ANNOUNCEMENT = global("voicemaild_announcement", "voicemail/vm-record_message.wav")
local BEEP = "tone_stream://%(1000, 0, 640)"
local MAX_SECONDS = 180
-- A recording ends after so many seconds below this level.
local SILENCE_LEVEL = 200
local SILENCE_SECONDS = 10
-- What a WAV file has before its first sample.
local WAV_HEADER_BYTES = 44

local function variable (name)
  -- One line each: a line break in an address would begin another field.
  return ((session:getVariable(name) or ""):gsub("%c", ""))
end

local function address (uri, user, host)
  local whole = variable(uri)
  if whole ~= "" then return whole end
  if variable(user) == "" then return "" end
  return "sip:" .. variable(user) .. "@" .. variable(host)
end

local function size (path)
  local file = io.open(path, "rb")
  if file == nil then return 0 end
  local bytes = file:seek("end")
  file:close()
  return bytes
end

-- `voicemail_to` is for dialplans that know better, as for a number that belongs to somebody.
local to = address("voicemail_to", "sip_req_user", "sip_req_host")
local from = address("voicemail_from", "sip_from_user", "sip_from_host")
-- A profile can make the caller's Call-ID the uuid of a call.
local name = SPOOL .. "/" .. os.time() .. "-" .. variable("uuid"):gsub("[^%w-]", "_"):sub(1, 100)
local recording = name .. ".wav"

-- Written before the caller speaks: where it cannot be written nobody is to speak, and after a crash what was recorded is still
-- known to be for somebody.
local call, problem = io.open(name .. ".call.part", "w")
if call == nil then
  freeswitch.consoleLog("err", "voicemaild: " .. tostring(problem) .. "\n")
  session:hangup("DESTINATION_OUT_OF_ORDER")
  return
end
call:write("to=", to, "\nfrom=", from, "\n")
call:close()

session:answer()
session:sleep(500)
session:streamFile(ANNOUNCEMENT)
if session:ready() then session:streamFile(BEEP) end
if session:ready() then session:recordFile(recording, MAX_SECONDS, SILENCE_LEVEL, SILENCE_SECONDS) end

if size(recording) > WAV_HEADER_BYTES then
  os.rename(name .. ".call.part", name .. ".call")
  freeswitch.API():executeString("bgapi system " .. UPLOADER)
else
  os.remove(recording)
  os.remove(name .. ".call.part")
end

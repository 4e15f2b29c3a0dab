-- What wrk runs: sends requests that differ in their targets alone, looks at every answer, and ends by itself.
-- Arguments: connections, seconds, most requests, "once" or "around" (how targets are used), "whole" or "length" (what is looked at), expected
-- status, method, file with targets (one a line), file with headers ("Name: value"), file with the body, file with the expected body, its
-- expected length; "-" for none.
--
-- With "length" answers are not handed to this script, which costs the client more than large bodies cost the server: an error's status and
-- the sum of all lengths are looked at, and an answer is counted when its connection asks for the next request.

local ffi = require('ffi')
ffi.cdef [[
  typedef struct { long sec; long nsec; } bench_time;
  int clock_gettime(int clock, bench_time *time);
  int getpid(void);
  int kill(int pid, int signal);
]]
local MONOTONIC, SIGINT = 1, 2
local clock = ffi.new('bench_time')

local function now ()
  ffi.C.clock_gettime(MONOTONIC, clock)
  return tonumber(clock.sec) + tonumber(clock.nsec) / 1e9
end

local function read (path)
  if path == '-' then return nil end
  local file = assert(io.open(path, 'rb'))
  local bytes = file:read('*a')
  file:close()
  return bytes
end

local threads = {}
function setup (thread) threads[#threads + 1] = thread end

-- Seen by done() through thread:get.
issued, answered, bad_status, bad_body, seconds_taken, first_bad = 0, 0, 0, 0, 0, ''
least_bytes, was_lean = 0, false

local connections, seconds, most, around, is_lean, status_wanted, method, tail, body_wanted, length_wanted
local targets, whole = {}, {}
local is_verified, is_draining, started_at, parked = false, false, 0, 0
-- What headers may add to the length of an answer.
local MOST_HEADERS = 2000

function init (args)
  connections, seconds, most, around = tonumber(args[1]), tonumber(args[2]), tonumber(args[3]), args[4] == 'around'
  is_lean, status_wanted, method = args[5] == 'length', tonumber(args[6]), args[7]
  for target in io.lines(args[8]) do targets[#targets + 1] = target end
  local body = read(args[10])
  tail = ' HTTP/1.1\r\nHost: 127.0.0.1\r\n' .. (read(args[9]) or '')
  if body then tail = tail .. 'Content-Length: ' .. #body .. '\r\n' end
  tail = tail .. '\r\n' .. (body or '')
  body_wanted, length_wanted = read(args[11]), tonumber(args[12])
  least_bytes = body_wanted and #body_wanted or 0
  was_lean = is_lean
  if is_lean then response = nil end
  if around then
    for n, target in ipairs(targets) do whole[n] = method .. ' ' .. target .. tail end
  elseif #targets < most then
    most = #targets
  end
end

-- Ends wrk, whose main thread sleeps for the whole duration otherwise.
local function finish ()
  wrk.thread:stop()
  ffi.C.kill(ffi.C.getpid(), SIGINT)
end

function request ()
  if not is_verified then
    -- wrk parses one request before it sends any.
    is_verified = true
    return method .. ' ' .. targets[1] .. tail
  end
  local at = now()
  if issued == 0 then started_at = at end
  -- A connection that asks again without an answer has broken, and the run has failed: done() tells.
  if not is_lean and issued - answered >= connections then finish() end
  if issued >= most or at - started_at >= seconds then
    is_draining = true
    parked = parked + 1
    if is_lean and parked == connections then
      answered = issued
      seconds_taken = at - started_at
    end
    if answered == issued then finish() end
    -- Nothing to send: the connection falls silent.
    return ''
  end
  issued = issued + 1
  if around then return whole[(issued - 1) % #whole + 1] end
  return method .. ' ' .. targets[issued] .. tail
end

function response (status, _, body)
  answered = answered + 1
  seconds_taken = now() - started_at
  if status ~= status_wanted then
    bad_status = bad_status + 1
    if first_bad == '' then first_bad = status .. ' ' .. body:sub(1, 300):gsub('%s+', ' ') end
  elseif (body_wanted and body ~= body_wanted) or (length_wanted and #body ~= length_wanted) then
    bad_body = bad_body + 1
    if first_bad == '' then first_bad = #body .. ' bytes' end
  end
  if is_draining and answered == issued then finish() end
end

function done (summary)
  local errors = summary.errors
  local thread = threads[1]
  local bad_status, bad_body, count = thread:get('bad_status'), thread:get('bad_body'), thread:get('answered')
  if thread:get('was_lean') then
    bad_status = errors.status
    local least = count * thread:get('least_bytes')
    if summary.bytes < least or summary.bytes > least + count * MOST_HEADERS then bad_body = count end
  end
  io.write(string.format('RESULT %.6f %d %d %d %d %d %d %d %d\n',
    thread:get('seconds_taken'), thread:get('issued'), count, bad_status, bad_body,
    errors.connect, errors.read, errors.write, errors.timeout))
  io.write('FIRST ' .. thread:get('first_bad') .. '\n')
end

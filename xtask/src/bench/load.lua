-- What wrk asks for: a random one of the plan's requests each time. They are made before the clock runs, so that wrk
-- itself takes little of the machine.

local plan = dofile(os.getenv("SEALPOD_BENCH_PLAN"))
local requests = {}
local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function init()
  wrong, status_of_wrong = 0, 0
  math.randomseed(os.time())
  for n = 0, plan.keys - 1 do
    local path = plan.path:gsub("{n}", string.format("%05d", n))
    local headers = {}
    for name, value in pairs(plan.headers) do
      headers[name] = value
    end
    requests[n] = wrk.format(plan.method, path, headers, plan.body)
  end
end

function request()
  return requests[math.random(0, plan.keys - 1)]
end

-- Only where it is asked for, because it takes time of each answer; wrk itself counts those from 400 on.
if os.getenv("SEALPOD_BENCH_CHECK") then
  function response(status)
    if status ~= plan.expect then
      wrong, status_of_wrong = wrong + 1, status
    end
  end
end

function done(summary, latency)
  local wrong, status = 0, 0
  for _, thread in ipairs(threads) do
    wrong = wrong + thread:get("wrong")
    status = math.max(status, thread:get("status_of_wrong"))
  end
  local errors = summary.errors
  io.write(string.format(
    "bench requests=%d took=%d p50=%d p99=%d max=%d failed=%d refused=%d wrong=%d status=%d\n",
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect + errors.read + errors.write, errors.status, wrong, status))
end

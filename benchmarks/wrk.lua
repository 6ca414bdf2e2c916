-- Sends each token of a file in turn, and prints in one line what came of it.

local requests, position = {}, 0

function init()
    for token in io.lines(os.getenv("TOKEN_GUARD_BENCH_TOKENS")) do
        requests[#requests + 1] = wrk.format("GET", "/", { Authorization = "Bearer " .. token })
    end
end

function request()
    position = position % #requests + 1
    return requests[position]
end

function done(summary)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    print(string.format("requests=%d microseconds=%d failed=%d", summary.requests, summary.duration, failed))
end

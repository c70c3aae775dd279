-- What wrk sends, and what it says at its end: one line of JSON.
-- Arguments: method, body's length in bytes, "length" or "chunked", then header fields as "Name: value".

function init(args)
   local method, length, framing = args[1], tonumber(args[2]), args[3]
   local lines = { method .. " " .. wrk.path .. " HTTP/1.1", "Host: " .. wrk.host }
   for index = 4, #args do lines[#lines + 1] = args[index] end
   local body = string.rep("x", length)
   if length > 0 and framing == "chunked" then
      lines[#lines + 1] = "Transfer-Encoding: chunked"
      body = string.format("%x\r\n%s\r\n0\r\n\r\n", length, body)
   elseif length > 0 then
      lines[#lines + 1] = "Content-Length: " .. length
   end
   local request = table.concat(lines, "\r\n") .. "\r\n\r\n" .. body
   wrk.format = function() return request end -- made once: wrk takes it for static as long as no `request` is defined
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "failed": %d, "status": %d, "timeout": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      errors.connect + errors.read + errors.write, errors.status, errors.timeout))
end

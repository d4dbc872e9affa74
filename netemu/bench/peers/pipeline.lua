-- wrk: sixteen requests at a time.
local sixteen

init = function()
   local requests = {}
   for i = 1, 16 do requests[i] = wrk.format() end
   sixteen = table.concat(requests)
end

request = function() return sixteen end

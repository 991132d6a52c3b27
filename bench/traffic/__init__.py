"""`make bench-traffic`: the cost for packets without rules, with kproxy's and with a peer's, in one run.

  setups (a lab for each: client -> node -> three pods, with a ruleset on the node)
    -> routes (a setup with destinations: pods directly, or Services)
    -> measures: first packets, connections, one stream
    -> rounds: all routes in turn, repeatedly; medians, quartiles, ratios within a round

All setups exist at the same time, and their routes are measured in turn. So other work of the machine affects
all of them equally.
"""

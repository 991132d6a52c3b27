"""`make bench-traffic`: what packets pay, through no rules, kproxy's, and those of a peer, in one run.

  roads (a lab each: client -> node -> three pods, a ruleset on the node)
    -> lanes (a road, and where one goes on it: straight to a pod, or through services)
    -> measures: first packets, whole connections, one stream
    -> rounds: every lane after the other, again and again; medians, quartiles, ratios within a round

All lanes are up at the same time and are measured in turn, so that what else the machine does
meets all of them alike.
"""

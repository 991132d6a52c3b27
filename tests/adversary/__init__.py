"""Attacks on a running kproxy: other parties send what they should not, and kproxy must go on.

    attacks   the attacks, one row each
    parties   a process that plays the other parties: servers in a pod, and clients of kproxy's listeners
    siege     a kproxy under attack, and what must hold meanwhile

During each attack, a canary Service changes. Its change must be in the kernel in time, /livez must answer,
and kproxy's memory and log must stay small. A new attack is a new row in `attacks`.
"""

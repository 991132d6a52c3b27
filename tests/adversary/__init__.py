"""Attacks on a running kproxy: other parties send what they should not, and kproxy must go on.

    attacks   the attacks, one row each
    parties   a process that plays the other parties: servers in a pod, and clients of kproxy's listeners
    siege     a kproxy under attack, and what must hold meanwhile

During each attack, a canary Service changes. Its change must be in the kernel within two seconds, /livez must
answer as fast, and kproxy's memory and log must stay small. The time in which threads wait for a CPU does not
count, so the two seconds also hold on a busy machine. A new attack is a new row in `attacks`.
"""

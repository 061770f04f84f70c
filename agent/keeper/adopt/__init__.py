"""Adoption: a program that binds its port by itself gets a slot instead (seccomp_unotify(2)).

    keeper --fork--> child --trap.install, gives the listener to the keeper--> exec --> bind(port)
                                                                                          | stands still
    Adopter.serve <-- Notice <-- listener becomes readable <------------------------------+
        is it a TCP socket, and the port one of the child's own?
        yes: the slot takes the place of its socket (ADDFD, SETFD), bind returns 0, listen too
        no:  the kernel does what was asked (CONTINUE)

The keeper does this itself, not the agent: it holds the slots anyway, may look at every descendant (which
Yama's ptrace_scope grants to ancestors only), and is there when the agent is not. So no call ever waits
for an agent, and none is lost by an agent's death between asking and answering.

`trap` is what the child does before exec, `notice` the kernel's structures, `sight` what can be seen of
the calling process, `adopter` the decisions.
"""

OTHER_FAMILY = "it bound an IPv4 address, and its port has an IPv6 one, which not every program bears"

"""Confinement: what a child gives up between fork and exec, so that the program it becomes has less.

    fork or clone(2) --> cgroups --> own mounts, /proc, lo --> limits --> bounding set, ruleset made
        --> its user --> no_new_privs --> capabilities --> ruleset in force --> seccomp --> execve(2)

Each *part* is tried in this order and told to the keeper: it is held, or lacking with the reason. Parts
that the order says must be there fail the start where they cannot be had; namespaces and limits always do.
Rights are needed for some parts (mounts, the bounding set), so the user changes in the middle; what is
made as root but concerns only the program (ruleset, filter) is put in force at the end.

`orders` carries them out, `capabilities`, `landlock` and `seccomp` are one mechanism each, `spaces` are
namespaces and what is mounted in them, `init` is the first process of a PID namespace.
"""

# SPDX-License-Identifier: GPL-3.0-or-later
"""Small programs that run in the kernel and tell of every connection when it is over.

They are written here, in the kernel's own instructions, and loaded without a compiler, a library or a file::

    btf -> assembler -> task_programs, life_programs -> machine        (load: privileged, for a moment)
    ring -> tasks, source -> observation                               (read: no privilege at all)

`load` makes what needs privilege and gives back descriptors; `source` reads them. Why the kernel puts connections
together and not the tracer: docs/decisions/programs.md.
"""

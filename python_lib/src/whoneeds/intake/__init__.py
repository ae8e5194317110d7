# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence from what others wrote: logs of meters and of security agents, and captures, as this project's records.

A parser takes one line and gives rows, or says what is wrong with the line; it touches no file, no clock and no store.
`whoneeds.intake.take` opens the files and writes what came out of them.
"""

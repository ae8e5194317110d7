# SPDX-License-Identifier: GPL-3.0-or-later
"""The collector: takes segments in, and finds out who spoke with whom and which processes stand behind both ends.

`ingest` is the only module here that touches files. The others are pure functions from Ibis tables to an Ibis
table, one module a table: `flows`, `attribution`, `instances`, `connections`; `sockets`, `listeners` and
`addresses` are what they share. Only equality and range joins are used, so that every engine behind Ibis can run them.
"""

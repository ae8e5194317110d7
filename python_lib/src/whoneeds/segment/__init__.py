# SPDX-License-Identifier: GPL-3.0-or-later
"""The file that crosses from host to controller: written on hosts, verified and read on the controller.

Layout, in this order:

1. one line ``whoneeds-segment <schema>``;
2. a zlib stream of UTF-8 lines of JSON: first an object with the header and the column names of each table,
   then one array a row (table name, then the values), at last an object with the number of rows of each table and
   the number and size of the blocks that follow;
3. blocks of connections, if there are any (see `whoneeds.segment.lives`), which become rows of sockets;
4. the SHA-256 of everything before it, 32 bytes.

A segment is written whole and renamed into place, so that a name that ends in ``.seg`` is a complete file. The
digest finds damage; it does not prove who wrote the file. That is why every value is checked against its column
as well, and why the reader stops at limits instead of trusting lengths.
"""

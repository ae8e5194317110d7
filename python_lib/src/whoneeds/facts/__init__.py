# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts: what the analysis concluded, made into a document and into inventory files that cannot execute."""

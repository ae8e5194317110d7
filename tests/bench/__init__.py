# SPDX-License-Identifier: GPL-3.0-or-later
"""What one sample of a host's sockets with their owners costs: the tracer beside the tools that people know."""

"""The wires to a server of ours: `base.py` is their contract, and one file each.

Each is imported when a client first uses it.
"""

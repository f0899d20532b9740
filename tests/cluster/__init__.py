"""`make cluster`: programs on a Patroni cluster whose primary is killed and switched over.

`__main__.py` is the command, `_nodes.py` the servers, `load.py` the program that writes and reads,
`_sampling.py` what is observed meanwhile, `_verdict.py` compares it with what greenpg promises.
"""
